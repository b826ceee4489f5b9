-- Uses every command of the other scripts, so that a server that is full, read-only or refuses one of them
-- does not count as up.
-- ARGV: the channel.

redis.call('TIME')
redis.call('SET', KEYS[1], '', 'PX', '1000')
redis.call('GET', KEYS[1])
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'g', '')
redis.call('PEXPIREAT', KEYS[1], '0')
redis.call('HMGET', KEYS[1], 'g')
redis.call('HDEL', KEYS[1], 'g')
redis.call('PUBLISH', ARGV[1], '')
return 1
