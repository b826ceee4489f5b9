-- What the scripts on entries begin with. An entry is a hash of
--   g, v, e   the value: its generation, its bytes, and when it ends
--   h, l      the lease: the generation to come, and when it ends
-- in milliseconds since 1970 by the server's clock, and ends itself with what ends last. What has ended, or
-- is none, counts as absent.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local fields = redis.call('HMGET', KEYS[1], 'g', 'v', 'e', 'h', 'l')

-- When something ends; nil if it has ended or `text` is no time.
local function ending(text)
  local time = tonumber(text or '')
  return time and time > now and time < 2^53 and time or nil
end

-- The generation named by the field `name`; nil for what cannot be one.
local function named(name)
  return name and #name == 16 and name or nil
end

-- What there is of the entry: with `generation`, also `value` and `value_end`; with `holder`, also
-- `lease_end`.
local value, value_end, lease_end = fields[2], ending(fields[3]), ending(fields[5])
local generation = value and value_end and named(fields[1])
local holder = lease_end and named(fields[4])

local function remove_value()
  redis.call('HDEL', KEYS[1], 'g', 'v', 'e')
  generation = nil
end

local function remove_lease()
  redis.call('HDEL', KEYS[1], 'h', 'l')
  holder = nil
end

-- Writes a value that lives for `ttl` milliseconds. First, because a server that is full refuses only the
-- first command of a script that needs memory.
local function write_value(name, bytes, ttl)
  value_end = now + ttl
  redis.call('HSET', KEYS[1], 'g', name, 'v', bytes, 'e', string.format('%.0f', value_end))
  generation = name
end

local function write_lease(name, length)
  lease_end = now + length
  redis.call('HSET', KEYS[1], 'h', name, 'l', string.format('%.0f', lease_end))
  holder = name
end

-- Makes the entry end with what ends last, or now.
local function expire()
  local last = math.max(generation and value_end or 0, holder and lease_end or 0)
  redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', last))
end

local function publish(channel, message)
  redis.call('PUBLISH', channel, message)
end
