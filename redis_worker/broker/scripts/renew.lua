-- Renew a worker's lease, unless it has been taken away.
-- KEYS 1 workers; if names are entered a second time: 2 retired, 3 claimants; 4 inflight, 5 arrived,
--      6 bundles
-- ARGV 1 worker, 2 lease in ms; of an idle worker: 3 lease at rest, in ms
-- Returns 1, or 2 if the lease rests, or 0 if the worker was presumed dead and other workers have its tasks.
-- A worker that holds nothing leaves nothing behind when it dies: its lease rests, and is a long one. Its end is marked by
-- a fraction, and a claim that takes tasks makes it a usual one in the same step.
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
-- The field `last` is no task.
local function is_without_tasks(inflight)
  local fields = redis.pcall('HLEN', inflight)
  return type(fields) == 'number' and fields <= 1
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[3] and redis.call('EXISTS', KEYS[5], KEYS[6]) == 0 and is_without_tasks(KEYS[4]) then
  redis.call('ZADD', KEYS[1], string.format('%.1f', now + ARGV[3] + 0.5), ARGV[1])
  return 2
end
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
return 1
