-- Renew a worker's lease, unless it has been taken away.
-- KEYS 1 workers; if names are entered a second time: 2 retired, 3 claimants
-- ARGV 1 worker, 2 lease in ms
-- Returns 1, or 0 if the worker was presumed dead and other workers have its tasks.
-- A worker presumed dead is in `retired`, and later in no registry. One that is only in `claimants` still owns
-- its tasks: its entry, or the whole key, was deleted.
local wrong = damage(KEYS[1], 'zset')
if wrong then return wrong end
local function has_vanished()
  return KEYS[3] and type(redis.pcall('ZSCORE', KEYS[3], ARGV[1])) == 'string'
    and redis.pcall('ZSCORE', KEYS[2], ARGV[1]) == false
end
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) and not has_vanished() then
  return 0
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
return 1
