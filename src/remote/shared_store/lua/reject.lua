-- ARGV: the generation, the channel, the message that announces its rejection.
-- Returns whether the value was removed: 1 or 0.

local removed = 0
if generation == ARGV[1] then
  remove_value()
  expire()
  removed = 1
end
publish(ARGV[2], ARGV[3])
return removed
