-- Submit the steps of flows: each is parked until the tasks that it waits for are answered; those that are answered count
-- at once. One whose id, or whose call, is there already is left out.
-- KEYS 1 the list for steps that need not wait any more, 2 unique, 3 output, 4 flow
-- ARGV 1 channel of results, 2 time to live of the answers of steps that fail at once (see expire_results), 3 nonce of
--      the inputs; then for each step its id, '1' if it is unique or '', digest of its call, ms (both as in admit.lua),
--      'fail' or 'run' (after an error), raw, digest of the key whose tasks run one after the other (empty: none), number
--      of tasks that it waits for, their ids
-- A step with such a key waits for the last one of it, by the records of unique tasks, and runs after an error as well.
-- Returns for each the id of the task that is there now.
local wrong = mistyped('input', KEYS[1], 'list') or mistyped('output', KEYS[3], 'hash')
  or damage(KEYS[2], 'hash') or flow_damage(KEYS[4])
if wrong then return wrong end
local time = redis.call('TIME')
local ids, awaited, is_known = {}, {}, {}

local function park(id, how, raw, others)
  -- The mark is unique, and edges with a later one come after those with an earlier one.
  local mark = string.format('%d%06d%06d', time[1], time[2], #ids)
  redis.call('HSET', KEYS[4], id, raw)
  redis.call('HSET', KEYS[4] .. '_left', id, table.concat({#others, mark, how, ARGV[3], KEYS[1]}, ' '))
  for _, other in ipairs(others) do
    redis.call('ZADD', KEYS[4] .. '_edges', 0, #other .. ':' .. other .. ':' .. mark .. ':' .. id)
    if not is_known[other] then
      is_known[other] = true
      awaited[#awaited + 1] = other
    end
  end
end

local i = 4
while i <= #ARGV do
  local id, raw, count, others = ARGV[i], ARGV[i + 5], tonumber(ARGV[i + 7]), {}
  local order = ARGV[i + 6] ~= '' and ARGV[i + 6] or nil
  for k = i + 8, i + 7 + count do others[#others + 1] = ARGV[k] end
  local before = order and redis.call('HGET', KEYS[2], 'o:' .. order)
  local owner = ARGV[i + 1] == '1' and begin_unique(KEYS[2], KEYS[3], id, ARGV[i + 2], ARGV[i + 3], order)
  if before and redis.call('HEXISTS', KEYS[2], 'i:' .. before) == 1 then others[#others + 1] = before end
  if owner then
    id = owner
  elseif #others > 0 then
    park(id, order and 'order' or ARGV[i + 4], raw, others)
  else
    redis.call('RPUSH', KEYS[1], raw)
  end
  ids[#ids + 1] = id
  i = i + 8 + count
end

local answers = {}
for _, id in ipairs(awaited) do
  local answer = redis.call('HGET', KEYS[3], id)
  if answer then
    answers[#answers + 1] = id
    answers[#answers + 1] = answer
  end
end
local first = #answers + 1
pass_on(KEYS[4], KEYS[3], answers)
write_answers(KEYS[3], answers, first, ARGV[2], ARGV[1])
return ids
