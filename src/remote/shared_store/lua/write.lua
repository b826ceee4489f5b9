-- ARGV: the generation, the value, its milliseconds to live, the channel, the message that announces the
-- change.

write_value(ARGV[1], ARGV[2], ARGV[3])
remove_lease()
expire()
publish(ARGV[4], ARGV[5])
return 1
