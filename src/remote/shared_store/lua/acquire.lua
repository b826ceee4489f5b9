-- ARGV: the lease, its length in milliseconds, the unwanted generation or '', the channel, the message that
-- announces its rejection or ''.
-- Returns {2, generation, value, milliseconds to live}, {1} if the lease is granted, or {0} if it is held.

local unwanted, message = ARGV[3], ARGV[5]
if message ~= '' then
  if generation == unwanted then
    remove_value()
    expire()
  end
  publish(ARGV[4], message)
end
if generation and generation ~= unwanted then
  return {2, generation, value, value_end - now}
end
-- A lease that seems to last longer than any is from before the server's clock was set back.
if holder and lease_end - now <= tonumber(ARGV[2]) then
  return {0}
end
write_lease(ARGV[1], ARGV[2])
if not generation then
  remove_value()
end
expire()
return {1}
