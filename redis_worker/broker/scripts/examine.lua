-- What an operator is told of a queue, at one moment. Changes nothing.
-- KEYS 1 waiting, 2 workers, 3 retired, 4 delayed, 5 dead, 6 dropped
-- ARGV 1 how long a lease may have ended, in ms, 2 how long a delayed task may be overdue, in ms, 3 the most workers
--      named, 4 how many waiting tasks are looked at, 5 the most bytes of one that is
-- Returns {now in ms, how many wait, live workers, {workers whose lease ended before that}, {retired workers},
--      dead letters, dropped ones, delayed tasks, overdue ones, when the first delayed one is due in ms or -1,
--      {waiting tasks from head to tail, evenly spread}}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local depth = redis.call('LLEN', KEYS[1])

local looked_at = {}
local count = math.min(depth, tonumber(ARGV[4]))
for i = 0, count - 1 do
  local raw = redis.call('LINDEX', KEYS[1], count == 1 and 0 or math.floor(i * (depth - 1) / (count - 1)))
  if #raw <= tonumber(ARGV[5]) then looked_at[#looked_at + 1] = raw end
end

local first = redis.call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')
return {
  now,
  depth,
  redis.call('ZCOUNT', KEYS[2], '(' .. now, '+inf'),
  redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[1], 'LIMIT', 0, ARGV[3]),
  redis.call('ZRANGE', KEYS[3], 0, ARGV[3] - 1),
  redis.call('LLEN', KEYS[5]),
  tonumber(redis.call('GET', KEYS[6]) or 0),
  redis.call('ZCARD', KEYS[4]),
  redis.call('ZCOUNT', KEYS[4], '-inf', now - ARGV[2]),
  #first > 0 and tonumber(first[2]) or -1,
  looked_at,
}
