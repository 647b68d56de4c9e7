-- End the delay of tasks: cancel them, with their retry counts, or append them to the queue.
-- KEYS 1 delayed, 2 waiting, 3 attempts, 4 unique
-- ARGV 1 'cancel' or 'run', then the members of the sorted set
-- A member without a token is taken for a raw task; a token may end with an @ and a priority, whose list the task goes to.
-- Returns the number of tasks still delayed.
local wrong = damage(KEYS[1], 'zset') or mistyped('input', KEYS[2], 'list')
if wrong then return wrong end
-- With another type, there are no counts to delete.
local counted = redis.call('TYPE', KEYS[3]).ok == 'hash'
local count = 0
for i = 2, #ARGV do
  local member = ARGV[i]
  if redis.call('ZSCORE', KEYS[1], member) then
    local raw = string.sub(member, (string.find(member, ':', 1, true) or 0) + 1)
    if ARGV[1] == 'run' then
      local priority = string.match(member, PRIORITY)
      redis.call('RPUSH', priority and list_with(priority, KEYS[1]) or KEYS[2], raw)  -- first: if it fails, no task is lost
    else
      local name = counted and digest(raw)
      if counted then redis.call('HDEL', KEYS[3], 'd' .. name, 'r' .. name) end
      drop_unique(KEYS[4], raw)
    end
    redis.call('ZREM', KEYS[1], member)
    count = count + 1
  end
end
return count
