-- Decide which of the tasks just claimed may start, under limits over all workers; the others wait in their lane. Call
-- up tasks that wait in lanes and may start now: to the head of the queue.
-- KEYS 1 inflight, 2 bundles, 3 delayed, 4 workers, 5 lanes, 6 waiting
-- ARGV 1 worker, 2 stem of the in-flight keys, 3 suffix of a hash of tasks, 4 of a hash of bundles, 5 stem of the keys of
--      limits, 6 ms for which a call holds, 7 '1' to look at all lanes, 8 number of changes N, then N times number, lane
--      and 'ended', or 'started' to count the start now; then for each task that asks number, lane, slack in ms (within
--      which it starts), 'back' if it shall not wait in the lane, its priority if that is not the default
-- A lane is a JSON list: its score among delayed tasks, then its limits [name, most, ms]: at most `most` starts
-- in each period of `ms`; or, if that is 0, at most `most` at a time.
-- Returns {ms until a task may be called, -1 if none waits, for each task that asks a verdict}:
local START, WAITS, BACK, GONE = 0, 1, 2, 3
-- BACK: it may not start, and is still in flight. GONE: it is not in flight here.
-- A limit has a sorted set of those that started: worker, newline, number -> the latest time of the start, in ms; and one
-- of those called: digest -> time until which the call holds. A task that has started counts as running only while its
-- worker has a lease and has it in flight: no lock can be left behind.
local wrong = damage(KEYS[1], 'hash', KEYS[2], 'hash', KEYS[3], 'zset', KEYS[4], 'zset', KEYS[5], 'zset')
  or mistyped('input', KEYS[6], 'list')
if wrong then return wrong end
local MOST_LANES, MOST_CALLED, WEEK, POLL = 200, 1000, 604800000, 1000
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000

local lanes, visits, strange = {}, {}, {}
local function read_lane(text)
  local score, limits = string.match(text, '^%[(%d+),(%[.*%])%]$')
  local lane = {text = text, score = score}
  for i, limit in ipairs(cjson.decode('[' .. limits .. ']')) do
    local started = ARGV[5] .. limit[1]
    lane[i] = {started = started, called = started .. ':called', most = limit[2] + 0, ms = limit[3] + 0}
  end
  return lane[1].started and lane
end

-- Read a lane that is to be looked at. Returns an error if a key of its limits holds another type.
local function visit(text)
  if lanes[text] then return nil end
  local is_one, lane = pcall(read_lane, text)
  if not is_one then
    strange[#strange + 1] = text
    return nil
  end
  for _, limit in ipairs(lane) do
    local wrong = damage(limit.started, 'zset', limit.called, 'zset')
    if wrong then return wrong end
  end
  lanes[text] = lane
  visits[#visits + 1] = lane
end

local last = 8 + 3 * ARGV[8]
if ARGV[7] == '1' then
  for _, text in ipairs(redis.call('ZRANGE', KEYS[5], 0, MOST_LANES - 1)) do wrong = wrong or visit(text) end
end
for i = 10, last, 3 do wrong = wrong or visit(ARGV[i]) end
for i = last + 2, #ARGV, 5 do wrong = wrong or visit(ARGV[i]) end
if wrong then return wrong end
if #strange > 0 then redis.call('ZREM', KEYS[5], unpack(strange)) end

local function is_running(member)
  local worker, number = string.match(member, '^(.*)\n(%d+)')
  if not worker or not redis.call('ZSCORE', KEYS[4], worker) then return false end
  return redis.pcall('HEXISTS', ARGV[2] .. worker .. ARGV[3], number) == 1
    or is_number(number) and is_bundled(ARGV[2] .. worker .. ARGV[4], number)
end

-- Return how many more tasks a limit lets start now.
local rooms, has_called = {}, {}
local function room_of(limit)
  local room = rooms[limit.started]
  if room then return room end
  redis.call('ZREMRANGEBYSCORE', limit.called, '-inf', now)
  if limit.ms > 0 then
    redis.call('ZREMRANGEBYSCORE', limit.started, '-inf', '(' .. string.format('%.3f', now - limit.ms))
  end
  local called = redis.call('ZCARD', limit.called)
  has_called[limit.started] = called > 0
  if limit.ms == 0 then
    -- Where there is room, the first ones are looked at, until one runs: the end of the last task leaves no key.
    local is_full = redis.call('ZCARD', limit.started) + called >= limit.most
    for _, member in ipairs(redis.call('ZRANGE', limit.started, 0, is_full and -1 or 15)) do
      if not is_running(member) then
        redis.call('ZREM', limit.started, member)
      elseif not is_full then
        break
      end
    end
  end
  room = limit.most - redis.call('ZCARD', limit.started) - called
  rooms[limit.started] = room
  return room
end

-- Return the ms until a limit without room lets another task start; nil if no time does.
local function wait_for(limit)
  if limit.ms == 0 then return nil end
  local place = 0 - room_of(limit)  -- not -0
  local first = redis.call('ZRANGE', limit.started, place, place, 'WITHSCORES')
  return first[2] and math.max(1, math.ceil(first[2] + limit.ms - now))
end

-- Have the tasks that started expire once none counts any more.
local function keep(limit)
  local latest = limit.ms > 0 and redis.call('ZRANGE', limit.started, -1, -1, 'WITHSCORES')[2]
  local ms = latest and math.ceil(latest + limit.ms - now) or WEEK
  redis.call('PEXPIRE', limit.started, math.min(ms, limit.ms + WEEK))
end

local function waiting_in(lane, count)
  return redis.call('ZRANGEBYSCORE', KEYS[3], lane.score, lane.score, 'LIMIT', 0, count)
end

for i = 9, last, 3 do
  local member = ARGV[1] .. '\n' .. ARGV[i]
  for _, limit in ipairs(lanes[ARGV[i + 1]]) do
    if limit.ms == 0 and ARGV[i + 2] == 'ended' then
      redis.call('ZREM', limit.started, member)
    elseif limit.ms > 0 and ARGV[i + 2] == 'started' then
      redis.call('ZADD', limit.started, string.format('%.3f', now), member)
      limit.is_new = true
    end
  end
end

local function is_empty(lane)
  if lane.is_empty == nil then lane.is_empty = #waiting_in(lane, 1) == 0 end
  return lane.is_empty
end

-- Return true if a task may start: there is room and nothing waits before it, or it has been called, or may already.
local function may_start(lane, member, raw)
  local has_room = true
  for _, limit in ipairs(lane) do has_room = room_of(limit) > 0 and has_room end
  return has_room and is_empty(lane)
    or has_called[lane[1].started] and redis.call('ZSCORE', lane[1].called, digest(raw))
    or redis.call('ZSCORE', lane[1].started, member)
end

local function note_start(lane, member, raw, slack)
  for _, limit in ipairs(lane) do
    local latest = limit.ms > 0 and now + slack or now
    local room = rooms[limit.started] - redis.call('ZADD', limit.started, string.format('%.3f', latest), member)
    if has_called[limit.started] then room = room + redis.call('ZREM', limit.called, digest(raw)) end
    rooms[limit.started] = room
    limit.is_new = true
  end
end

local reply = {-1}
for i = last + 1, #ARGV, 5 do
  local number, lane, slack = ARGV[i], lanes[ARGV[i + 1]], tonumber(ARGV[i + 2]) or 0
  local raw = task_in_flight(KEYS[1], KEYS[2], number)
  local verdict = GONE
  if raw then
    local member = ARGV[1] .. '\n' .. number
    if may_start(lane, member, raw) then
      note_start(lane, member, raw, slack)
      verdict = START
    elseif ARGV[i + 3] == 'back' then
      verdict = BACK
    else
      -- The microsecond and the place in this call: a lane is in the order in which its tasks came.
      local token = string.format('%s%06d%06d%s', time[1], time[2], i, ARGV[i + 4])
      redis.call('ZADD', KEYS[3], lane.score, token .. ':' .. raw)
      redis.call('ZADD', KEYS[5], 'NX', 0, lane.text)
      lane.is_empty = false
      end_flight(KEYS[1], KEYS[2], number)
      verdict = WAITS
    end
  end
  reply[#reply + 1] = verdict
end
for _, lane in ipairs(visits) do
  for _, limit in ipairs(lane) do
    if limit.is_new then keep(limit) end
  end
end

local function sooner(ms)
  reply[1] = reply[1] < 0 and ms or math.min(reply[1], ms)
end

local function call_up(lane)
  local room = MOST_CALLED
  for _, limit in ipairs(lane) do room = math.min(room, room_of(limit)) end
  local members = waiting_in(lane, math.max(1, room))
  if #members == 0 then
    redis.call('ZREM', KEYS[5], lane.text)
    return
  end
  -- A lane that was looked at comes last next time.
  redis.call('ZADD', KEYS[5], now, lane.text)
  for i = math.min(room, #members), 1, -1 do
    local raw = string.sub(members[i], string.find(members[i], ':', 1, true) + 1)
    local priority = string.match(members[i], PRIORITY)
    redis.call('LPUSH', priority and list_with(priority, KEYS[3]) or KEYS[6], raw)
    redis.call('ZREM', KEYS[3], members[i])
    for _, limit in ipairs(lane) do
      redis.call('ZADD', limit.called, now + ARGV[6], digest(raw))
      redis.call('PEXPIRE', limit.called, ARGV[6])
      rooms[limit.started] = rooms[limit.started] - 1
    end
  end
  local wait = POLL
  for _, limit in ipairs(lane) do
    if room_of(limit) < 1 then wait = math.min(wait, wait_for(limit) or POLL) end
  end
  sooner(wait)
end

for _, lane in ipairs(visits) do call_up(lane) end
empty_bundles()
return reply
