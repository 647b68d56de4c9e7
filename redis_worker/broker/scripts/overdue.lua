-- Which workers let their lease end, which retired ones are still looked at, and which are so for the last time.
-- KEYS 1 workers, 2 retired
-- Returns {dead workers, retired workers, those of them that may be forgotten when they hold nothing}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return {
  redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now),
  redis.call('ZRANGE', KEYS[2], 0, -1),
  redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now),
}
