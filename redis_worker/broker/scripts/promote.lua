-- Append due tasks to the queue, in the order of their due time.
-- KEYS 1 delayed, 2 waiting
-- ARGV 1 limit
-- A member without a token is taken for a raw task; a token may end with an @ and a priority, whose list the task goes to.
-- Returns {number of tasks moved, ms until the next one is due, or -1 if there is none}
local wrong = damage(KEYS[1], 'zset') or mistyped('input', KEYS[2], 'list')
if wrong then return wrong end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
local lists = {}
for i, member in ipairs(due) do
  local priority = string.match(member, PRIORITY)
  lists[i] = priority and list_with(priority, KEYS[1])
  wrong = priority and mistyped('input', lists[i], 'list')
  if wrong then return wrong end
end
for i, member in ipairs(due) do
  redis.call('RPUSH', lists[i] or KEYS[2], string.sub(member, (string.find(member, ':', 1, true) or 0) + 1))
end
for first = 1, #due, 4000 do
  redis.call('ZREM', KEYS[1], unpack(due, first, math.min(first + 3999, #due)))
end
local next = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if #next == 0 then
  return {#due, -1}
end
return {#due, math.max(0, math.min(tonumber(next[2]) - now, 2 ^ 52))}
