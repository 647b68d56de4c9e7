-- List a worker's in-flight tasks, to compare with those it holds.
-- KEYS 1 inflight, 2 attempts
-- Returns {tasks, counts}, as claim.lua does.
local tasks, counts = redis.call('LRANGE', KEYS[1], 0, -1), {}
if redis.call('TYPE', KEYS[2]).ok == 'hash' then
  for i, raw in ipairs(tasks) do
    counts[2 * i - 1], counts[2 * i] = counts_of(KEYS[2], raw)
  end
end
return {tasks, counts}
