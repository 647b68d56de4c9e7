-- Move tasks from the head of the queue to the worker's in-flight list.
-- KEYS 1 waiting, 2 inflight, 3 workers, 4 attempts
-- ARGV 1 worker, 2 limit, 3 max deliveries, 4 mode: 0 plain; 1 a BLMOVE has just moved one task in
--      flight; 2 sent together with a BLMOVE, which may have moved one
-- Returns {state, tasks, counts}: counts are, for each task, the arrived one first, how many workers died
-- holding it and how often it was tried again; empty means 0 for all. States:
local OK, LEASE_LOST, ALONE, ASK_AGAIN = 0, 1, 2, 3
-- ALONE: nothing may be claimed until the worker has nothing else in flight (see below), and the
-- arrived task, if there was one, is back at the head of the queue.
-- ASK_AGAIN: mode 2 cannot be answered; ask again in mode 1 if a task has arrived.

if not redis.call('ZSCORE', KEYS[3], ARGV[1]) then
  return {LEASE_LOST, {}, {}}
end

local function take(tasks)
  -- In flight first, then off the queue: an error between the two repeats tasks, it loses none.
  for first = 1, #tasks, 4000 do
    redis.call('RPUSH', KEYS[2], unpack(tasks, first, math.min(first + 3999, #tasks)))
  end
  redis.call('LTRIM', KEYS[1], #tasks, -1)
end

local limit = tonumber(ARGV[2])
local head = redis.call('LINDEX', KEYS[1], 0)
if head and #head * limit > 16777216 then
  -- Large tasks are taken few at a time: some 16 MiB.
  limit = math.min(limit, math.max(1, math.floor(16777216 / #head)))
end
if redis.call('EXISTS', KEYS[4]) == 0 then
  local tasks = {}
  if limit > 0 then
    tasks = redis.call('LRANGE', KEYS[1], 0, limit - 1)
    if #tasks > 0 then take(tasks) end
  end
  return {OK, tasks, {}}
end

if ARGV[4] == '2' then
  return {ASK_AGAIN, {}, {}}
end

-- Some tasks were tried before. Every task a worker holds is charged when it dies, for nobody knows
-- which one killed it; so the last chance is taken alone, and whoever dies then is guilty.
local digest = redis.sha1hex or function(raw) return raw end
local last_chance = tonumber(ARGV[3]) - 1
local function counts_of(raw)
  local name = digest(raw)
  local counts = redis.call('HMGET', KEYS[4], 'd' .. name, 'r' .. name)
  return tonumber(counts[1] or 0), tonumber(counts[2] or 0)
end
local function is_last(deaths)
  return last_chance > 0 and deaths == last_chance
end

local held = redis.call('LLEN', KEYS[2])
local counts = {}
local function note(deaths, retries)
  counts[#counts + 1] = deaths
  counts[#counts + 1] = retries
end

if ARGV[4] == '1' then
  local deaths, retries = counts_of(redis.call('LINDEX', KEYS[2], -1))
  if held > 1 and (is_last(deaths) or is_last((counts_of(redis.call('LINDEX', KEYS[2], 0))))) then
    redis.call('LMOVE', KEYS[2], KEYS[1], 'RIGHT', 'LEFT')
    return {ALONE, {}, {}}
  end
  note(deaths, retries)
  if is_last(deaths) then
    return {OK, {}, counts}
  end
elseif held > 0 and is_last((counts_of(redis.call('LINDEX', KEYS[2], 0)))) then
  return {ALONE, {}, {}}
end

local tasks = {}
if limit > 0 then
  for _, raw in ipairs(redis.call('LRANGE', KEYS[1], 0, limit - 1)) do
    local deaths, retries = counts_of(raw)
    if is_last(deaths) then
      if held == 0 and #tasks == 0 then
        tasks[1] = raw
        note(deaths, retries)
      elseif #tasks == 0 and ARGV[4] ~= '1' then
        return {ALONE, {}, {}}
      end
      break
    end
    tasks[#tasks + 1] = raw
    note(deaths, retries)
  end
  if #tasks > 0 then take(tasks) end
end
return {OK, tasks, counts}
