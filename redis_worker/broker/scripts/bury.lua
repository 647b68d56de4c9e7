-- Store dead letters without a claim.
-- KEYS 1 dead, 2 dropped
-- ARGV 1 most dead letters, 2 number of letters sent before without a reply, 3 … letters, those first
-- Returns the length of the list.
local wrong = damage(KEYS[1], 'list')
if wrong then return wrong end
local letters = {}
for i = 3, #ARGV do
  -- Compared before any is stored: two equal letters are two.
  if i > 2 + ARGV[2] or not redis.call('LPOS', KEYS[1], ARGV[i], 'RANK', -1) then
    letters[#letters + 1] = ARGV[i]
  end
end
for first = 1, #letters, 4000 do
  redis.call('RPUSH', KEYS[1], unpack(letters, first, math.min(first + 3999, #letters)))
end
drop_oldest(KEYS[1], ARGV[1], KEYS[2])
return redis.call('LLEN', KEYS[1])
