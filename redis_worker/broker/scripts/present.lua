-- Keep what a worker says of itself, with the time, as long as it has a lease: nobody would take it away later.
-- KEYS 1 workers, 2 presence
-- ARGV 1 worker, 2 a JSON object, not empty, to which `published_at` is added, in s of the server's clock
-- Returns 1, or 0 when the worker has no lease: nothing is kept.
local wrong = damage(KEYS[1], 'zset', KEYS[2], 'hash')
if wrong then return wrong end
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return 0
end
local time = redis.call('TIME')
local at = string.format(',"published_at":%s.%03d}', time[1], math.floor(time[2] / 1000))
redis.call('HSET', KEYS[2], ARGV[1], string.sub(ARGV[2], 1, -2) .. at)
return 1
