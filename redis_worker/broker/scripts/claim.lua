-- Move tasks to the worker's in-flight list: first those BLMOVE has brought, then from the head of the queue.
-- KEYS 1 waiting, 2 inflight, 3 arrived, 4 workers, 5 attempts, 6 paused
-- ARGV 1 worker, 2 limit, 3 max deliveries
-- Returns {state, tasks, counts}: counts are, for each task, the workers that died holding it and its
-- retries; empty means 0 for all. If `attempts` holds another type, the counts are lost: tasks
-- are claimed without counts, and the type is the fourth element. States:
local OK, LEASE_LOST, ALONE, PAUSED = 0, 1, 2, 3
-- ALONE: nothing may be claimed until the worker has nothing else in flight (see below).
-- PAUSED: nothing may be claimed, and arrived tasks are back at the head of the queue, uncharged.

local lease = redis.pcall('ZSCORE', KEYS[4], ARGV[1])
if not lease then
  return {LEASE_LOST, {}, {}}
elseif type(lease) == 'table' then
  return damage(KEYS[4], 'zset') or lease
end

-- Usually neither exists, and one command shows it.
local tried, found = false, nil
local unusual = redis.call('EXISTS', KEYS[5], KEYS[6])
if unusual > 0 then
  local paused = redis.call('EXISTS', KEYS[6])
  if paused == 1 then
    while redis.call('LMOVE', KEYS[3], KEYS[1], 'RIGHT', 'LEFT') do end
    return {PAUSED, {}, {}}
  end
  found = redis.call('TYPE', KEYS[5]).ok
  tried = found == 'hash'
end

-- Only one BLMOVE is under way at a time, but the reply of an earlier claim may have been lost.
local arrived = {}
if tried then
  arrived = redis.call('LRANGE', KEYS[3], 0, -1)
else
  -- The path of a lone task: each command counts.
  local raw = redis.call('LMOVE', KEYS[3], KEYS[2], 'LEFT', 'RIGHT')
  while raw do
    arrived[#arrived + 1] = raw
    raw = redis.call('LMOVE', KEYS[3], KEYS[2], 'LEFT', 'RIGHT')
  end
end

local function take(from, tasks)
  -- First in flight, then off the list: an error in between repeats tasks and loses none.
  for first = 1, #tasks, 4000 do
    redis.call('RPUSH', KEYS[2], unpack(tasks, first, math.min(first + 3999, #tasks)))
  end
  redis.call('LTRIM', from, #tasks, -1)
end

local limit = math.max(0, tonumber(ARGV[2]) - #arrived)
local head = redis.call('LINDEX', KEYS[1], 0)
if head and #head * limit > 16777216 then
  -- Large tasks are taken in small numbers: some 16 MiB.
  limit = math.min(limit, math.max(1, math.floor(16777216 / #head)))
end
local candidates = {}
if head and limit > 0 then
  candidates = redis.call('LRANGE', KEYS[1], 0, limit - 1)
end

if not tried then
  if #candidates > 0 then take(KEYS[1], candidates) end
  for _, raw in ipairs(candidates) do
    arrived[#arrived + 1] = raw
  end
  return {OK, arrived, {}, found}
end

-- Some tasks were tried before. All tasks a worker holds are charged when it dies, since any of them may have
-- killed it; so a task with one chance left is claimed alone, and is guilty if the worker dies then.
local last_chance = tonumber(ARGV[3]) - 1
local function is_last(deaths)
  return last_chance > 0 and deaths == last_chance
end

local held = redis.call('LLEN', KEYS[2])
local alone = held > 0 and is_last((counts_of(KEYS[5], redis.call('LINDEX', KEYS[2], 0))))
local tasks, counts = {}, {}

local function choose(list)
  -- Take the tasks of `list` that are allowed now, from its head.
  local chosen = {}
  for _, raw in ipairs(list) do
    local deaths, retries = counts_of(KEYS[5], raw)
    if alone or (is_last(deaths) and held + #tasks > 0) then break end
    alone = is_last(deaths)
    chosen[#chosen + 1] = raw
    tasks[#tasks + 1] = raw
    counts[#counts + 1] = deaths
    counts[#counts + 1] = retries
  end
  return chosen
end

local chosen = choose(arrived)
if #chosen > 0 then take(KEYS[3], chosen) end
if #chosen < #arrived then
  for _ = 1, #arrived - #chosen do
    redis.call('LMOVE', KEYS[3], KEYS[1], 'RIGHT', 'LEFT')
  end
else
  chosen = choose(candidates)
  if #chosen > 0 then take(KEYS[1], chosen) end
end
if #tasks == 0 and #arrived + #candidates > 0 then
  return {ALONE, {}, {}}
end
return {OK, tasks, counts}
