-- Prolong a worker's lease, unless it has been taken away.
-- KEYS 1 workers
-- ARGV 1 worker, 2 lease in ms
-- Returns 1, or 0 when the worker was presumed dead and its tasks have gone to others.
local wrong = damage(KEYS[1], 'zset')
if wrong then return wrong end
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return 0
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], 'XX', now + ARGV[2], ARGV[1])
return 1
