-- ARGV: the lease, the channel, the message that announces the change.
-- Returns whether it was held: 1 or 0.

if holder ~= ARGV[1] then
  return 0
end
remove_lease()
expire()
publish(ARGV[2], ARGV[3])
return 1
