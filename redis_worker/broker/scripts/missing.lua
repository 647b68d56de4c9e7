-- List a worker's in-flight tasks that it does not know to hold.
-- KEYS 1 inflight, 2 attempts, 3 bundles
-- ARGV the numbers of the tasks that it holds
-- Returns {numbers, tasks, counts}, in the order of their claim; counts as claim.lua does.
local known = {}
for _, number in ipairs(ARGV) do known[tonumber(number)] = true end
local numbers, tasks, counts = {}, {}, {}
local counted = redis.call('TYPE', KEYS[2]).ok == 'hash'
for _, number in ipairs(numbers_in(KEYS[1], KEYS[3])) do
  local raw = not known[number] and task_in_flight(KEYS[1], KEYS[3], number)
  if raw then
    numbers[#numbers + 1] = number
    tasks[#tasks + 1] = raw
    if counted then
      local deaths, retries = counts_of(KEYS[2], raw)
      counts[#counts + 1] = deaths
      counts[#counts + 1] = retries
    end
  end
end
return {numbers, tasks, counts}
