-- Remove tasks from the head of the queue, unless it is paused.
-- KEYS 1 waiting, 2 paused
-- ARGV 1 limit
-- Returns {paused, tasks}, with paused 1 or 0.
if redis.call('EXISTS', KEYS[2]) == 1 then
  return {1, {}}
end
return {0, redis.call('LPOP', KEYS[1], ARGV[1]) or {}}
