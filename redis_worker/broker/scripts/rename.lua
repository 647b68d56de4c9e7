-- Give a worker a new name, and what it holds: one of its keys holds another type, so that it cannot claim.
-- KEYS 1 workers, 2 retired, 3 claimants, 4 inflight, 5 inflight under the new name, 6 presence, 7 bundles,
--      8 bundles under the new name
-- ARGV 1 worker, 2 new name, 3 lease in ms, 4 ms for which the present name stays retired
-- Returns 1, or 0 if the worker was presumed dead and other workers have its tasks.
local wrong = damage(KEYS[1], 'zset')
if wrong then return wrong end
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[2])
-- These and the presence may hold another type: overdue.lua reports that.
redis.pcall('ZADD', KEYS[3], ARGV[3], ARGV[2])
redis.pcall('ZADD', KEYS[2], now + ARGV[4], ARGV[1])
if redis.call('TYPE', KEYS[4]).ok == 'hash' then
  redis.call('RENAME', KEYS[4], KEYS[5])
end
if redis.call('TYPE', KEYS[7]).ok == 'hash' then
  for _, first in ipairs(redis.call('HKEYS', KEYS[7])) do
    redis.pcall('RENAME', list_of(KEYS[7], first), list_of(KEYS[8], first))  -- somebody may have deleted the list
  end
  redis.call('RENAME', KEYS[7], KEYS[8])
end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.pcall('HDEL', KEYS[6], ARGV[1])
return 1
