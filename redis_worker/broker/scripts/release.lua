-- Return tasks to the head of the queue, in order, if the worker still holds them.
-- KEYS 1 inflight, 2 waiting, 3 workers, 4 bundles
-- ARGV 1 worker, 2 '1' to return tasks although they are not held, 3 … their numbers, in the order they were claimed;
--      with 2, the raw tasks
-- Returns the positions, from 0, of the tasks that are not held although the worker has its lease: see settle.lua.
local wrong = mistyped('input', KEYS[2], 'list')
if wrong then return wrong end
local forced = ARGV[2] == '1'
local owns_all = type(redis.pcall('ZSCORE', KEYS[3], ARGV[1])) == 'string'
local left = {}
for i = #ARGV, 3, -1 do
  if forced then
    if owns_all then redis.call('LPUSH', KEYS[2], ARGV[i]) end
  else
    local raw = task_in_flight(KEYS[1], KEYS[4], ARGV[i])
    if raw then
      redis.call('LPUSH', KEYS[2], raw)
      end_flight(KEYS[1], KEYS[4], ARGV[i])
    elseif owns_all then
      table.insert(left, 1, i - 3)
    end
  end
end
empty_bundles()
return left
