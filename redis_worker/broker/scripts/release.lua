-- Return tasks to the head of the queue, in order, if the worker still holds them.
-- KEYS 1 inflight, 2 waiting, 3 workers
-- ARGV 1 worker, 2 '1' if they may have been returned before and the reply was lost, 3 … the raw tasks, in the
--      order they were claimed
-- Returns the number of tasks returned. As in settle.lua, a task that is not in flight although the worker has its
-- lease is returned too, unless it may have been returned before.
local wrong = mistyped('input', KEYS[2], 'list')
if wrong then return wrong end
local is_list = redis.call('TYPE', KEYS[1]).ok == 'list'
local owns_all = ARGV[2] == '' and type(redis.pcall('ZSCORE', KEYS[3], ARGV[1])) == 'string'
local count = 0
for i = #ARGV, 3, -1 do
  if (is_list and redis.call('LREM', KEYS[1], -1, ARGV[i]) == 1) or owns_all then
    redis.call('LPUSH', KEYS[2], ARGV[i])
    count = count + 1
  end
end
return count
