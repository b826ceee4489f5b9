-- Takes tokens from a bucket by the generic cell rate algorithm (ITU-T I.371): the key holds when the bucket
-- is full again, in microseconds since 1970 by the server's clock, and ends then.
-- ARGV: the microseconds in which one token is added, the capacity, how many tokens are wanted.
-- Returns {how many are granted, the microseconds until there is one}.

local interval, wanted = tonumber(ARGV[1]), tonumber(ARGV[3])
local capacity = interval * ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

-- Neither garbage nor a clock that was set back may keep a bucket empty for longer than it takes to fill.
local full = tonumber(redis.call('GET', KEYS[1]) or '') or now
full = full > now and math.min(full, now + capacity) or now

local room = capacity - (full - now)
local granted = math.min(wanted, math.floor(room / interval))
if granted > 0 then
  full = full + granted * interval
  redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', string.format('%.0f', math.ceil((full - now) / 1000)))
end
return {granted, math.max(interval - room, 0)}
