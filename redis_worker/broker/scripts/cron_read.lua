-- Read the state of a cron job.
-- KEYS 1 running, 2 runs, 3 queued, 4 record
-- Returns {now in ms, runs with a lease, start of the first of them in ms or -1, queued instants,
--      then field, value for each field of the record}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local alive = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')
local since = -1
for _, run in ipairs(alive) do
  local record = redis.call('HGET', KEYS[2], run)
  local started = record and tonumber(string.match(record, '^%S+ %S+ (%d+)'))
  if started and (since < 0 or started < since) then since = started end
end
local reply = {now, #alive, since, redis.call('ZCARD', KEYS[3])}
for _, text in ipairs(redis.call('HGETALL', KEYS[4])) do
  reply[#reply + 1] = text
end
return reply
