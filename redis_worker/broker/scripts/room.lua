-- Find how many tasks of a queue may start now under its rate.
-- KEYS 1 started: worker, newline, number -> the latest time of the start, in ms (see gate.lua); then the lists of waiting
--      tasks
-- ARGV 1 most starts, 2 in each period of so many ms
-- Returns {their number, ms until one more may start, number of waiting tasks}
local wrong = damage(KEYS[1], 'zset')
local waiting = 0
for i = 2, #KEYS do
  wrong = wrong or mistyped('input', KEYS[i], 'list')
  if wrong then return wrong end
  waiting = waiting + redis.call('LLEN', KEYS[i])
end
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local since = string.format('%.3f', now - ARGV[2])
local started = redis.call('ZCOUNT', KEYS[1], since, '+inf')
local room = math.max(0, ARGV[1] - started)
local first = room == 0 and redis.call('ZREVRANGE', KEYS[1], ARGV[1] - 1, ARGV[1] - 1, 'WITHSCORES')
local wait = first and math.max(1, math.min(first[2] + ARGV[2] - now, 2 ^ 52)) or 0
return {room, math.ceil(wait), waiting}
