-- Record the outcome of a run, once, even if called repeatedly.
-- KEYS 1 running, 2 runs, 3 record, 4 ended
-- ARGV 1 run, 2 outcome, 3 its suffix ('' or ' by hand'), 4 error, 5 duration in ms, 6 instant, 7 start,
--      8 worker, 9 '1' if it continues nevertheless, and stays in `running`
-- Returns 1, 2 if it had been presumed lost, or 0 if it was recorded before.
local wrong = damage(KEYS[1], 'zset', KEYS[2], 'hash', KEYS[3], 'hash', KEYS[4], 'list')
if wrong then return wrong end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[9] ~= '1' then
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('HDEL', KEYS[2], ARGV[1])
end
local reply = 1
for _, ended in ipairs(redis.call('LRANGE', KEYS[4], 0, -1)) do
  if ended == ARGV[1] then return 0 end
  if ended == 'lost ' .. ARGV[1] then  -- it was only cut off
    add_to(KEYS[3], 'count:lost', -1)
    reply = 2
    break
  end
end
redis.call('LPUSH', KEYS[4], ARGV[1])
redis.call('LTRIM', KEYS[4], 0, 99)
add_to(KEYS[3], 'count:' .. ARGV[2], 1)
redis.call('HSET', KEYS[3], 'instant', ARGV[6], 'started', ARGV[7], 'finished', string.format('%.0f', now),
  'duration', ARGV[5], 'outcome', ARGV[2] .. ARGV[3], 'error', ARGV[4], 'worker', ARGV[8])
return reply
