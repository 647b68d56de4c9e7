-- Store dead letters without a claim.
-- KEYS 1 dead, 2 dropped
-- ARGV 1 most dead letters, 2 … letters
-- Returns the length of the list.
local wrong = damage(KEYS[1], 'list')
if wrong then return wrong end
for first = 2, #ARGV, 4000 do
  redis.call('RPUSH', KEYS[1], unpack(ARGV, first, math.min(first + 3999, #ARGV)))
end
drop_oldest(KEYS[1], ARGV[1], KEYS[2])
return redis.call('LLEN', KEYS[1])
