-- Register a job in its keys. A new job, or one with a changed schedule, has missed nothing.
-- KEYS 1 fired, 2 record, 3 queued, 4 ended, 5 running, 6 runs
-- ARGV 1 application, 2 name, 3 schedule, 4 time zone, 5 'first', 'again' if this process has done so before,
--      or 'hand' if it will run the job once without taking over its schedule; 6 seconds for which the job is
--      remembered after that
-- Returns {now in ms, the latest instant dealt with: no instant up to it may fire any more}
local wrong = damage(KEYS[1], 'zset', KEYS[2], 'hash')
if wrong then return wrong end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local stored = redis.call('HMGET', KEYS[2], 'schedule', 'timezone', 'floor')
local last = redis.call('ZRANGE', KEYS[1], -1, -1)[1]
local new = not stored[3] and not last
local other = stored[1] ~= ARGV[3] or stored[2] ~= ARGV[4]
if (new and ARGV[5] ~= 'hand') or (other and ARGV[5] == 'first') then
  stored[3] = now
  redis.call('HSET', KEYS[2], 'floor', string.format('%.0f', now))
  redis.call('HDEL', KEYS[2], 'next')
end
if not stored[1] or ARGV[5] == 'first' then
  redis.call('HSET', KEYS[2], 'app', ARGV[1], 'name', ARGV[2], 'schedule', ARGV[3], 'timezone', ARGV[4])
end
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, ARGV[6]) end
return {now, math.max(tonumber(stored[3] or 0) or 0, tonumber(last or 0) or 0)}
