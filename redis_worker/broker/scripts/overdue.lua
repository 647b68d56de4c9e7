-- Which workers let their lease end, which retired ones are still looked at, and which are so for the last time.
-- KEYS 1 workers, 2 retired
-- Returns {dead workers, retired workers, those of them that may be forgotten when they hold nothing}; where `retired`
-- holds another type, there are none, and the type is the fourth element
local wrong = damage(KEYS[1], 'zset')
if wrong then return wrong end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local dead = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)
local found = redis.call('TYPE', KEYS[2]).ok
if found ~= 'zset' and found ~= 'none' then return {dead, {}, {}, found} end
return {
  dead,
  redis.call('ZRANGE', KEYS[2], 0, -1),
  redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now),
}
