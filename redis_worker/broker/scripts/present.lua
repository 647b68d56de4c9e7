-- Store a worker's description, with the time, if it has a lease: nothing would delete it otherwise.
-- KEYS 1 workers, 2 presence
-- ARGV 1 worker, 2 description, a JSON object, not empty; `published_at`, in s of the server's clock, is added to it
-- Returns 1, or 0 if the worker has no lease: nothing is stored.
local wrong = damage(KEYS[1], 'zset', KEYS[2], 'hash')
if wrong then return wrong end
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return 0
end
local time = redis.call('TIME')
local at = string.format(',"published_at":%s.%03d}', time[1], math.floor(time[2] / 1000))
redis.call('HSET', KEYS[2], ARGV[1], string.sub(ARGV[2], 1, -2) .. at)
return 1
