-- Hand tasks back to the head of the queue, in order, as far as the worker still holds them.
-- KEYS 1 inflight, 2 waiting
-- ARGV the raw tasks, in the order they were claimed
-- Returns how many were handed back.
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
