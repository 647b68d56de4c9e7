-- Note that a process lives; forget those silent for long.
-- KEYS 1 processes
-- ARGV 1 process, 2 silence in ms after which others are deleted
-- Returns 1.
local wrong = damage(KEYS[1], 'zset')
if wrong then return wrong end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
return 1
