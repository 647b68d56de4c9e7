-- Delay tasks until they are due.
-- KEYS 1 delayed
-- ARGV 1 channel of delayed tasks, 2 due time in ms: of the server's clock if 3 is 'at', from
--      now on if it is 'in'; then token, raw for each
local wrong = damage(KEYS[1], 'zset')
if wrong then return wrong end
local due = tonumber(ARGV[2])
if ARGV[3] == 'in' then
  local time = redis.call('TIME')
  due = due + time[1] * 1000 + math.ceil(time[2] / 1000)  -- rounded up: nothing is due early
end
for i = 4, #ARGV, 2 do
  redis.call('ZADD', KEYS[1], due, ARGV[i] .. ':' .. ARGV[i + 1])
end
redis.pcall('PUBLISH', ARGV[1], '')
return (#ARGV - 3) / 2
