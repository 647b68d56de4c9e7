-- Find how many tasks of a queue may start now under its rate.
-- KEYS 1 waiting, 2 started: worker, newline, number -> the latest time of the start, in ms (see gate.lua)
-- ARGV 1 most starts, 2 in each period of so many ms
-- Returns {their number, ms until one more may start, number of waiting tasks}
local wrong = mistyped('input', KEYS[1], 'list') or damage(KEYS[2], 'zset')
if wrong then return wrong end
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local since = string.format('%.3f', now - ARGV[2])
local started = redis.call('ZCOUNT', KEYS[2], since, '+inf')
local room = math.max(0, ARGV[1] - started)
local first = room == 0 and redis.call('ZREVRANGE', KEYS[2], ARGV[1] - 1, ARGV[1] - 1, 'WITHSCORES')
local wait = first and math.max(1, math.min(first[2] + ARGV[2] - now, 2 ^ 52)) or 0
return {room, math.ceil(wait), redis.call('LLEN', KEYS[1])}
