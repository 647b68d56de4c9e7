-- Move tasks in flight: first those BLMOVE has brought, then from the head of the queue.
-- KEYS 1 waiting, 2 inflight, 3 arrived, 4 workers, 5 attempts, 6 paused, 7 bundles; with priorities, 8 … the
--      lists of all but `default`
-- ARGV 1 worker, 2 limit, 3 max deliveries, 4 the greatest number that the worker knows, 5 bytes of a large task,
--      6 lease in ms, in place of one at rest (see renew.lua), 7 from how many tasks on they go into bundles, however
--      small; with priorities, 8 the names of all but `default`, 9 their order, 10 their turns, 11 the next turn (see
--      shares_of)
-- Returns {state, tasks, counts, number of the first task; the others follow it, number of the first large task, and
-- the number after the last one}: counts are, for each task, the workers that died holding it and its retries; empty
-- means 0 for all. The worker reads large tasks from their bundles. If `attempts` holds another type, the counts are
-- lost: tasks are claimed without counts, and the type is the seventh element. With priorities, it returns a
-- list of such replies, one for each list of which tasks were claimed, unless there is none. States:
local OK, LEASE_LOST, ALONE, PAUSED = 0, 1, 2, 3
-- ALONE: nothing may be claimed until the worker has nothing else in flight (see below).
-- PAUSED: nothing may be claimed, and arrived tasks are back at the head of the queue, uncharged.

local lease = redis.pcall('ZSCORE', KEYS[4], ARGV[1])
if not lease then
  return {LEASE_LOST, {}, {}, 0, 0, 0}
elseif type(lease) == 'table' then
  return damage(KEYS[4], 'zset') or lease
end

-- Return about how many bytes a task near the head of a list has.
local function size_of(list, waiting)
  local bytes = redis.pcall('MEMORY', 'USAGE', list)
  -- Not every server knows this command.
  return type(bytes) == 'number' and bytes / waiting or #redis.call('LINDEX', list, 0)
end

-- Beside a task that comes alone none of these exists, and one command shows it: each further one costs a server that has
-- just woken some 6 us.
local tried, found = false, nil
local is_bare = redis.call('EXISTS', KEYS[1], KEYS[5], KEYS[6], KEYS[7]) == 0
if not is_bare then
  local paused = redis.call('EXISTS', KEYS[6])
  if paused == 1 then
    while redis.call('LMOVE', KEYS[3], KEYS[1], 'RIGHT', 'LEFT') do end
    return {PAUSED, {}, {}, 0, 0, 0}
  end
  found = redis.call('TYPE', KEYS[5]).ok
  tried = found == 'hash'
  if found == 'none' then found = nil end
end

-- Only one BLMOVE is under way at a time, but the reply of an earlier claim may have been lost.
local arrived = redis.call('LRANGE', KEYS[3], 0, -1)
local last = math.max(last_number(KEYS[2]), tonumber(ARGV[4]))
local base = 0  -- what the numbers of a priority begin from, see SPAN

local function end_rest()
  if lease % 1 ~= 0 then
    local time = redis.call('TIME')
    lease = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[6]
    redis.call('ZADD', KEYS[4], lease, ARGV[1])
  end
end

-- Put tasks in flight. They leave their list afterwards: an error in between repeats tasks and loses none.
local function hold(tasks)
  if #tasks > 0 then end_rest() end
  for start = 1, #tasks, 2000 do
    local pairs, size = {LAST, ''}, 2
    for i = start, math.min(start + 1999, #tasks) do
      last = last + 1
      pairs[size + 1], pairs[size + 2] = base + last, tasks[i]
      size = size + 2
    end
    pairs[2] = string.format(LAST_FORMAT, last) .. (ARGV[8] or '')
    redis.call('HSET', KEYS[2], unpack(pairs, 1, size))
  end
end

local function drop(list, count)
  if count > 0 then redis.call('LTRIM', list, count, -1) end
end

-- Put large tasks from the head of a list in flight. Returns their number: 0 as well if the server refuses SORT.
local function hold_large(queue, count)
  local taken, before = 0, last
  end_rest()
  last = last + (-1 - last) % BUNDLE
  while taken < count do
    -- Without sorting, it copies the next tasks into a list of their own, and the script sees none of them.
    local list, most = list_of(KEYS[7], base + last + 1), math.min(BUNDLE, count - taken)
    local copied = redis.pcall('SORT', queue, 'BY', 'nosort', 'LIMIT', taken, most, 'STORE', list)
    if copied ~= most then break end
    redis.call('HSET', KEYS[7], base + last + 1, 2 ^ copied - 1)
    taken, last = taken + copied, last + copied
  end
  if taken == 0 then
    last = before
  else
    redis.call('HSET', KEYS[2], LAST, string.format(LAST_FORMAT, last) .. (ARGV[8] or ''))
    drop(queue, taken)
  end
  return taken
end

local function claim_untried(list, waiting, limit, size)
  if not is_bare then redis.call('HLEN', KEYS[7]) end  -- an error here, if it is no hash, costs no task
  local first = base + last + 1
  hold(arrived)
  drop(KEYS[3], #arrived)
  local many = math.min(limit, waiting)
  -- Whole bundles, so that the numbers of the next claim follow.
  if many >= tonumber(ARGV[7]) then many = many - many % BUNDLE elseif size < tonumber(ARGV[5]) then many = 0 end
  local large = many > 0 and hold_large(list, many) or 0
  if large > 0 then return {OK, arrived, {}, first, base + last + 1 - large, base + last + 1, found} end
  local tasks, taken = arrived, 0
  -- In pieces of some 64 KiB: the server copies a reply that a script reads again and again while it grows.
  local step = math.max(1, math.floor(65536 / math.max(1, size)))
  while taken < math.min(limit, waiting) do
    local piece = redis.call('LRANGE', list, taken, math.min(taken + step, limit) - 1)
    hold(piece)
    for _, raw in ipairs(piece) do tasks[#tasks + 1] = raw end
    taken = taken + #piece
    if #piece < step then break end
  end
  drop(list, taken)
  return {OK, tasks, {}, first, 0, 0, found}
end

-- Some tasks were tried before. All tasks a worker holds are charged when it dies, since any of them may have
-- killed it; so a task with one chance left is claimed alone, and is guilty if the worker dies then.
local last_chance = tonumber(ARGV[3]) - 1
local function is_last(deaths)
  return last_chance > 0 and deaths == last_chance
end

local function claim_tried(list, waiting, limit)
  local numbers = numbers_in(KEYS[2], KEYS[7])
  local held = #numbers
  local only = held == 1 and task_in_flight(KEYS[2], KEYS[7], numbers[1])
  local alone = only and is_last((counts_of(KEYS[5], only)))
  local tasks, counts, first = {}, {}, base + last + 1

  local function choose(list)
    -- Take the tasks of `list` that are allowed now, from its head. Returns their number.
    for i, raw in ipairs(list) do
      local deaths, retries = counts_of(KEYS[5], raw)
      if alone or (is_last(deaths) and (held > 0 or #tasks > 0)) then return i - 1 end
      alone = is_last(deaths)
      tasks[#tasks + 1] = raw
      counts[#counts + 1] = deaths
      counts[#counts + 1] = retries
    end
    return #list
  end

  local chosen = choose(arrived)
  local left = #arrived - chosen
  if left == 0 and limit > 0 then choose(redis.call('LRANGE', list, 0, limit - 1)) end
  hold(tasks)
  drop(KEYS[3], chosen)
  drop(list, #tasks - chosen)
  for _ = 1, left do
    redis.call('LMOVE', KEYS[3], KEYS[1], 'RIGHT', 'LEFT')
  end
  if #tasks == 0 and (waiting > 0 or #arrived > 0) then
    return {ALONE, {}, {}, 0, 0, 0}
  end
  return {OK, tasks, counts, first, 0, 0}
end

-- Claim tasks that arrived, and up to `limit` of the `waiting` ones of a list.
local function claim_from(list, waiting, limit)
  local size = waiting > 0 and size_of(list, waiting) or 0
  if size * limit > 2097152 then
    -- Large tasks are taken in small numbers: some 2 MiB, which stay in the caches of both programs.
    limit = math.min(limit, math.max(1, math.floor(2097152 / size)))
  end
  if tried then return claim_tried(list, waiting, limit) end
  return claim_untried(list, waiting, limit, size)
end

local limit = math.max(0, tonumber(ARGV[2]) - #arrived)
if not ARGV[8] then return claim_from(KEYS[1], is_bare and 0 or redis.call('LLEN', KEYS[1]), limit) end

local lengths = {[0] = redis.call('LLEN', KEYS[1])}
for i = 8, #KEYS do lengths[i - 7] = redis.call('LLEN', KEYS[i]) end
local shares = shares_of(lengths, ARGV[9], ARGV[10], tonumber(ARGV[11]), limit)
local replies, state = {}, OK
for digit in string.gmatch(ARGV[9], '%d') do
  local number = tonumber(digit)
  if shares[number] > 0 then
    base = number * SPAN
    local reply = claim_from(number == 0 and KEYS[1] or KEYS[number + 7], lengths[number], shares[number])
    arrived = {}
    state = reply[1]
    if state ~= OK then break end  -- what follows waits too, so that a task with one chance left is alone at some time
    replies[#replies + 1] = reply
  end
end
return #replies > 0 and replies or {state, {}, {}, 0, 0, 0}
