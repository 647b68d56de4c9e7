-- Write and announce results, without acknowledging a claim.
-- KEYS 1 output
-- ARGV 1 channel, 2 time to live in s (0: for ever), then field, result for each
local wrong = mistyped('output', KEYS[1], 'hash')
if wrong then return wrong end
local ids = {}
for i = 3, #ARGV, 2 do
  ids[#ids + 1] = ARGV[i]
end
for first = 3, #ARGV, 4000 do
  redis.call('HSET', KEYS[1], unpack(ARGV, first, math.min(first + 3999, #ARGV)))
end
if ARGV[2] ~= '0' then
  for first = 1, #ids, 4000 do
    local last = math.min(first + 3999, #ids)
    redis.call('HEXPIRE', KEYS[1], ARGV[2], 'FIELDS', last - first + 1, unpack(ids, first, last))
  end
end
redis.pcall('PUBLISH', ARGV[1], cjson.encode(ids))
return #ids
