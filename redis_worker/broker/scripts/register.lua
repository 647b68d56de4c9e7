-- Give a worker its lease, and enter its name a second time, so that its tasks are found if the lease vanishes.
-- KEYS 1 workers, 2 claimants
-- ARGV 1 worker, 2 lease in ms
local wrong = damage(KEYS[1], 'zset')
if wrong then return wrong end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.pcall('ZADD', KEYS[2], ARGV[2], ARGV[1])  -- it may hold another type: overdue.lua reports that
return 1
