-- Write and announce results, without acknowledging a claim.
-- KEYS 1 output
-- ARGV 1 channel, 2 time to live (see expire_results), then field, result for each
local wrong = mistyped('output', KEYS[1], 'hash')
if wrong then return wrong end
local ids, fields = {}, {}
for i = 3, #ARGV, 2 do
  ids[#ids + 1] = ARGV[i]
  fields[#fields + 1] = ARGV[i]
  fields[#fields + 1] = ARGV[i + 1]
end
for first = 3, #ARGV, 4000 do
  redis.call('HSET', KEYS[1], unpack(ARGV, first, math.min(first + 3999, #ARGV)))
end
expire_results(KEYS[1], ARGV[2], fields)
redis.pcall('PUBLISH', ARGV[1], cjson.encode(ids))
return #ids
