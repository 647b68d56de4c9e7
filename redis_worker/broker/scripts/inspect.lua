-- How a queue stands, and its workers, at one moment. Writes nothing.
-- KEYS 1 waiting, 2 delayed, 3 dead, 4 dropped, 5 workers, 6 presence
-- ARGV 1 stem of the in-flight lists, 2 what the name of a list of arrived tasks ends with
-- Returns {now in ms, waiting, delayed, dead, dropped, then for each worker its name, when its lease ends in
--          ms, how many tasks it has in flight, what it says of itself or ''}
local time = redis.call('TIME')
local found = {
  time[1] * 1000 + math.floor(time[2] / 1000),
  redis.call('LLEN', KEYS[1]),
  redis.call('ZCARD', KEYS[2]),
  redis.call('LLEN', KEYS[3]),
  tonumber(redis.call('GET', KEYS[4]) or 0),
}
local workers = redis.call('ZRANGE', KEYS[5], 0, -1, 'WITHSCORES')
for i = 1, #workers, 2 do
  local name = workers[i]
  local inflight = ARGV[1] .. name
  found[#found + 1] = name
  found[#found + 1] = tonumber(workers[i + 1])
  found[#found + 1] = redis.call('LLEN', inflight) + redis.call('LLEN', inflight .. ARGV[2])
  found[#found + 1] = redis.call('HGET', KEYS[6], name) or ''
end
return found
