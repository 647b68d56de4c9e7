-- Queue missed instants that are to be caught up.
-- KEYS 1 fired, 2 queued, 3 record
-- ARGV 1 number of instants kept, 2 … instants in ms, in order
-- Returns the number not dealt with before.
local wrong = damage(KEYS[1], 'zset', KEYS[2], 'zset', KEYS[3], 'hash')
if wrong then return wrong end
local floor = tonumber(redis.call('HGET', KEYS[3], 'floor') or 0) or 0
local queued = 0
for i = 2, #ARGV do
  if tonumber(ARGV[i]) > floor and redis.call('ZADD', KEYS[1], 'NX', ARGV[i], ARGV[i]) == 1 then
    redis.call('ZADD', KEYS[2], ARGV[i], ARGV[i])
    queued = queued + 1
  end
end
local surplus = redis.call('ZCARD', KEYS[1]) - tonumber(ARGV[1])
if surplus > 0 then
  local old = tonumber(redis.call('ZRANGE', KEYS[1], surplus - 1, surplus - 1)[1]) or 0
  redis.call('ZREMRANGEBYRANK', KEYS[1], 0, surplus - 1)
  redis.call('HSET', KEYS[3], 'floor', string.format('%.0f', math.max(floor, old)))
end
return queued
