-- ARGV: the channel, the message that announces the change.
-- Returns whether there was a value: 1 or 0.

local found = generation and 1 or 0
redis.call('DEL', KEYS[1])
publish(ARGV[1], ARGV[2])
return found
