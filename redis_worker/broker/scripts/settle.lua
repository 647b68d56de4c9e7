-- Write the outcomes of tasks and acknowledge them, in one step, if the worker still holds them.
-- KEYS 1 inflight, 2 attempts, 3 dead, 4 workers, 5 delayed, 6 dropped, 7 bundles, 8 output (absent if there
--      are no results, or if it lies in another slot: write.lua has written them before); for an
--      idempotent topic, which has no output, 8 done, 9 begun; for tasks with records, the last two are
--      unique, cancelled; to pass results on, 8 output, 9 the list that successes are pushed to, as new tasks
-- ARGV 1 worker, 2 channel of results, 3 channel of delayed tasks, 4 most dead letters, 5 time to live of
--      results (see expire_results), 6 ms for which counts are kept, 7 ms for which completed messages are
--      remembered (0: not idempotent; -1: nor that, but tasks may have records; -2: nor that, but results are
--      passed on), 8 '1' to write outcomes although their tasks are not held, 9 number of answered tasks N,
--      10 number of delayed tasks M, 11 number of the first answered task if the others follow it, or ''; then N times
--      number (only with '' in 11), field, result; M times number, token, delay in ms; for each dead one number,
--      letter, has result ('1' or ''), field, result. With 8, the raw task stands in place of its number.
-- Returns the positions, from 0, of the tasks that other workers have now: nothing is written for
-- them. While the worker has its lease, no other has its tasks: one that is not held was settled before, and the reply
-- was lost, or somebody deleted or overwrote the in-flight hash. Only the worker can know: its position p is returned
-- as -1 - p. If it was not settled before, the worker calls again, with 8.
-- If a needed key holds another type, the tasks that need it stay unchanged and in flight, and all others are
-- written. Then returns {positions, section, key, found, expected, …}: section 0 for answered tasks, 1 for
-- delayed ones, 2 for dead ones, and 3 if none is left in flight.
-- Steps of flows that wait for these answers are pushed, or fail, in the same step: see flows.lua. Whether there are any is
-- asked each time, for no worker may miss that.
local remember = tonumber(ARGV[7])
local unique, marks = remember == -1 and KEYS[#KEYS - 1], remember == -1 and KEYS[#KEYS]
local forward = remember == -2 and KEYS[9]
local output = (remember == 0 or forward) and KEYS[8] or marks and #KEYS > 9 and KEYS[8]
if output then
  local wrong = mistyped('output', output, 'hash') or forward and mistyped('input', forward, 'list')
  if wrong then return wrong end
end

-- Usually none of these exists, and one command shows it.
local flow = beside(KEYS[2], 'flow')
local is_unusual = redis.call('EXISTS', KEYS[2], KEYS[7], flow) > 0
if not is_unusual then opened[KEYS[7]] = {none = true} end
local attempts = is_unusual and redis.call('TYPE', KEYS[2]).ok or 'none'
local has_flows = is_unusual and output and redis.call('EXISTS', flow) == 1
-- With another type, there are no counts to delete.
local tried = attempts == 'hash'
local fields, ids, refused = {}, {}, {}

local damages, is_left = {}, {}
local function needs(section, key, kind)
  local found = redis.call('TYPE', key).ok
  if found ~= kind and found ~= 'none' then
    is_left[section] = true
    for _, value in ipairs({section, key, found, kind}) do damages[#damages + 1] = value end
  end
end

local function has_lease()
  return type(redis.pcall('ZSCORE', KEYS[4], ARGV[1])) == 'string'
end

local forced = ARGV[8] == '1'

-- Return the raw task of an argument; nil if it is not held.
local function raw_of(number)
  if forced then return number end
  return task_in_flight(KEYS[1], KEYS[7], number)
end

-- `is_there` is false for a task that is needed, and that somebody deleted.
local function acknowledge(number, position, is_there)
  if not forced and end_flight(KEYS[1], KEYS[7], number) and is_there then return true end
  local owned = has_lease()
  if forced and owned then return true end
  refused[#refused + 1] = owned and -1 - position or position
  return false
end

local function forget(raw)
  local name = digest(raw)
  if tried then redis.call('HDEL', KEYS[2], 'd' .. name, 'r' .. name) end
  if marks then redis.pcall('ZREM', marks, name) end
end

local onward, stamp
if forward then
  local time = redis.call('TIME')
  onward, stamp = {}, string.format('%d.%06d', time[1], time[2])
end

local function answer(field, result)
  if forward and is_success(result) then
    -- The text of the result ends with the brace that ends the task.
    local value = string.sub(result, #SUCCESS + 1)
    onward[#onward + 1] = '{"id":' .. cjson.encode(field) .. ',"emit_ts":' .. stamp .. ',"task":' .. value
    return
  end
  if unique then end_unique(unique, field) end
  local count = #ids + 1
  ids[count] = field
  fields[2 * count - 1], fields[2 * count] = field, result
end

local answered, again = tonumber(ARGV[9]), tonumber(ARGV[10])
local run = tonumber(ARGV[11])
local each = run and 2 or 3
local first_again = 12 + each * answered
local first_dead = first_again + 3 * again

if remember > 0 and answered > 0 then needs(0, KEYS[8], 'zset') end
if again > 0 then
  needs(1, KEYS[5], 'zset')
  if attempts ~= 'none' then needs(1, KEYS[2], 'hash') end
end
if first_dead <= #ARGV then needs(2, KEYS[3], 'list') end
if has_flows then
  for key, kind in pairs({[flow] = 'hash', [flow .. '_left'] = 'hash', [flow .. '_edges'] = 'zset'}) do
    if answered > 0 then needs(0, key, kind) end
    if first_dead <= #ARGV then needs(2, key, kind) end
  end
end

-- The leading tasks that follow each other in whole bundles: no step of Lua for each but that of its id.
local ended = is_left[0] and answered or 0
if run and ended == 0 and not (tried or marks or forward) then
  repeat
    local count = end_flights(KEYS[7], run + ended, math.min(answered, 3000) - ended)
    ended = ended + count
  until count == 0
  fields = {unpack(ARGV, 12, 11 + 2 * ended)}
  for i = 1, ended do ids[i] = fields[2 * i - 1] end
end
for position = ended, answered - 1 do
  local at = 12 + each * position
  local number = run and run + position or ARGV[at]
  local raw = (tried or marks) and raw_of(number)
  if acknowledge(number, position, true) then
    if raw then forget(raw) end
    answer(ARGV[at + each - 2], ARGV[at + each - 1])
  end
end

local completed = #ids
if again > 0 and not is_left[1] then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.ceil(time[2] / 1000)
  local keep = tonumber(ARGV[6])
  for i = first_again, first_dead - 1, 3 do
    local raw, delay = raw_of(ARGV[i]), tonumber(ARGV[i + 2])
    if acknowledge(ARGV[i], answered + (i - first_again) / 3, raw) then
      redis.call('ZADD', KEYS[5], now + delay, ARGV[i + 1] .. ':' .. raw)
      add_to(KEYS[2], 'r' .. digest(raw), 1)
      tried = true
      keep = math.max(keep, delay + tonumber(ARGV[6]))
    end
  end
  if redis.call('PTTL', KEYS[2]) < keep then
    redis.call('PEXPIRE', KEYS[2], keep)
  end
  redis.pcall('PUBLISH', ARGV[3], '')
end

if first_dead <= #ARGV and not is_left[2] then
  local begun = remember > 0 and redis.call('TYPE', KEYS[9]).ok == 'hash'
  for i = first_dead, #ARGV, 5 do
    local raw = (tried or marks) and raw_of(ARGV[i])
    if acknowledge(ARGV[i], answered + again + (i - first_dead) / 5, true) then
      if raw then forget(raw) end
      redis.call('RPUSH', KEYS[3], ARGV[i + 1])
      if remember > 0 then
        if begun then redis.call('HDEL', KEYS[9], ARGV[i + 3]) end
      elseif ARGV[i + 2] == '1' then
        answer(ARGV[i + 3], ARGV[i + 4])
      end
    end
  end
  if drop_oldest(KEYS[3], ARGV[4], KEYS[6]) then needs(3, KEYS[6], 'string') end
end

if remember > 0 and completed > 0 then
  -- In this step, so that a crash between work and mark repeats the work instead of skipping it.
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local begun = redis.call('TYPE', KEYS[9]).ok == 'hash'
  redis.call('ZREMRANGEBYSCORE', KEYS[8], '-inf', now)
  for i = 1, completed do
    redis.call('ZADD', KEYS[8], 'NX', now + remember, ids[i])
    if begun then redis.call('HDEL', KEYS[9], ids[i]) end
  end
end

for first = 1, forward and #onward or 0, 4000 do
  redis.call('RPUSH', forward, unpack(onward, first, math.min(first + 3999, #onward)))
end
empty_bundles()
if output and #fields > 0 then
  if has_flows then
    pass_on(flow, output, fields)
    for i = 2 * #ids + 1, #fields, 2 do ids[#ids + 1] = fields[i] end
  end
  for first = 1, #fields, 4000 do
    redis.call('HSET', output, unpack(fields, first, math.min(first + 3999, #fields)))
  end
  expire_results(output, ARGV[5], fields)
  -- pcall: a user without permission for the channel still gets results; clients then poll.
  -- A lone one with its result, to spare a client that waits for it another call.
  local is_alone = #ids == 1 and #fields[2] <= 4096
  local news = is_alone and '{' .. cjson.encode(ids[1]) .. ':' .. fields[2] .. '}' or cjson.encode(ids)
  redis.pcall('PUBLISH', ARGV[2], news)
end
if #damages > 0 then
  return {refused, unpack(damages)}
end
return refused
