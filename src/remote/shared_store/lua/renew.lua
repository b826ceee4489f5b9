-- ARGV: the lease, its length in milliseconds.
-- Returns whether it is held: 1 or 0.

if holder ~= ARGV[1] then
  return 0
end
write_lease(ARGV[1], ARGV[2])
expire()
return 1
