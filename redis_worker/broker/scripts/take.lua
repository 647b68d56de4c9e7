-- Remove tasks from the head of the queue, unless it is paused.
-- KEYS 1 waiting, 2 paused, 3 unique (absent if no task is unique): the record of a unique task ends as it is taken
-- ARGV 1 limit
-- Returns {paused, tasks}, with paused 1 or 0.
if redis.call('EXISTS', KEYS[2]) == 1 then
  return {1, {}}
end
local tasks = redis.call('LPOP', KEYS[1], ARGV[1]) or {}
for i = 1, KEYS[3] and #tasks or 0 do drop_unique(KEYS[3], tasks[i]) end
return {0, tasks}
