-- Cancel a task: remove it with its answer, or mark it if it is in flight, for its worker to cancel.
-- KEYS 1 waiting, 2 delayed, 3 attempts, 4 output, 5 cancelled, 6 unique; then for each place in flight where the task was
--      seen: inflight, bundles. The steps of flows that wait for this answer are pushed, or fail: see flows.lua
-- ARGV 1 id, 2 answer, 3 channel of results, 4 time to live of the answer (see expire_results), 5 ms for which a mark
--      holds, 6 number of members N of `delayed`, then these; the number in flight for each place; the raw tasks
-- Returns a state:
local UNKNOWN, ANSWERED, REMOVED, MARKED = -1, 0, 1, 2
-- UNKNOWN: it is in none of these places by now.
local flow = beside(KEYS[6], 'flow')
local wrong = mistyped('output', KEYS[4], 'hash') or damage(KEYS[2], 'zset', KEYS[5], 'zset') or flow_damage(flow)
if wrong then return wrong end
local lists = lists_of(KEYS[1], KEYS[2])
for _, list in ipairs(lists) do
  wrong = mistyped('input', list, 'list')
  if wrong then return wrong end
end
if redis.call('HEXISTS', KEYS[4], ARGV[1]) == 1 then return ANSWERED end

-- The place of a step in the order of its key stays: what follows still waits for what is before.
if string.find(redis.call('HGET', flow .. '_left', ARGV[1]) or '', '^%d+ %d+ order ') then
  redis.call('HSET', flow, ARGV[1], '!' .. ARGV[2])
  write_answers(KEYS[4], {ARGV[1], ARGV[2]}, 1, ARGV[4], ARGV[3])
  return REMOVED
end

local first_number = 7 + ARGV[6]
local first_raw = first_number + (#KEYS - 6) / 2
local removed, raws = redis.call('HDEL', flow, ARGV[1]), {}
redis.call('HDEL', flow .. '_left', ARGV[1])
for i = first_raw, #ARGV do
  raws[ARGV[i]] = true
  for _, list in ipairs(lists) do removed = removed + redis.call('LREM', list, 0, ARGV[i]) end
end
for i = 7, first_number - 1 do
  removed = removed + redis.call('ZREM', KEYS[2], ARGV[i])
end
if removed > 0 then
  if redis.call('TYPE', KEYS[3]).ok == 'hash' then
    for raw in pairs(raws) do redis.call('HDEL', KEYS[3], 'd' .. digest(raw), 'r' .. digest(raw)) end
  end
  end_unique(KEYS[6], ARGV[1])
  local answers = {ARGV[1], ARGV[2]}
  pass_on(flow, KEYS[4], answers)
  write_answers(KEYS[4], answers, 1, ARGV[4], ARGV[3])
  return REMOVED
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local state = UNKNOWN
for i = first_number, first_raw - 1 do
  local place = 7 + 2 * (i - first_number)
  local raw = task_in_flight(KEYS[place], KEYS[place + 1], ARGV[i])
  if raw and raws[raw] then
    redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', now)
    redis.call('ZADD', KEYS[5], now + ARGV[5], digest(raw))
    redis.call('PEXPIRE', KEYS[5], ARGV[5])
    state = MARKED
  end
end
return state
