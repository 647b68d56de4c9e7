-- Give a worker its lease.
-- KEYS 1 workers
-- ARGV 1 worker, 2 lease in ms
local wrong = damage(KEYS[1], 'zset')
if wrong then return wrong end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
return 1
