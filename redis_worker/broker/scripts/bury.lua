-- Keep dead letters, with no claim to acknowledge.
-- KEYS 1 dead, 2 dropped
-- ARGV 1 most dead letters, 2 … letters
-- Returns how many there are.
local wrong = damage(KEYS[1], 'list')
if wrong then return wrong end
for first = 2, #ARGV, 4000 do
  redis.call('RPUSH', KEYS[1], unpack(ARGV, first, math.min(first + 3999, #ARGV)))
end
drop_oldest(KEYS[1], ARGV[1], KEYS[2])
return redis.call('LLEN', KEYS[1])
