-- Return tasks to the head of the queue, in order, if the worker still holds them.
-- KEYS 1 inflight, 2 waiting
-- ARGV the raw tasks, in the order they were claimed
-- Returns the number of tasks returned.
local wrong = damage(KEYS[1], 'list') or mistyped('input', KEYS[2], 'list')
if wrong then return wrong end
local count = 0
for i = #ARGV, 1, -1 do
  if redis.call('LREM', KEYS[1], -1, ARGV[i]) == 1 then
    redis.call('LPUSH', KEYS[2], ARGV[i])
    count = count + 1
  end
end
return count
