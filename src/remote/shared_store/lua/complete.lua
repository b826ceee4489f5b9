-- ARGV: the lease, the value, its milliseconds to live, the channel, the message that announces the change.
-- Returns whether the lease was held, and the value is written: 1 or 0.

if holder ~= ARGV[1] then
  return 0
end
write_value(ARGV[1], ARGV[2], ARGV[3])
remove_lease()
expire()
publish(ARGV[4], ARGV[5])
return 1
