-- Steps of flows: tasks that are parked until others are answered. A paragraph is put before the scripts that use it.
-- `flow` is a hash: id of a parked step -> its raw task. Two more keys are named after it: `flow_left`, a hash: id -> how
-- many answers are missing, mark of the submission, `fail`, `run` or `order` (see park.lua), nonce of its inputs, and its list,
-- separated by blanks; `flow_edges`, a sorted set, all of score 0: length of an id, that id, mark, id of the step that
-- waits for it, separated by colons. An edge with another mark than its step is one of an earlier submission.

local function flow_damage(flow)
  return damage(flow, 'hash', flow .. '_left', 'hash', flow .. '_edges', 'zset')
end

local SUCCESS = '{"status":"success","result":'

local function is_success(result)
  return string.sub(result, 1, #SUCCESS) == SUCCESS
end

-- Pass answers on to the steps that wait for them. `fields` holds id, answer for each; the answers of steps that
-- fail are appended, and the caller writes them. What it needs is inside: most calls of settle.lua need none of it.
local function pass_on(flow, output, fields)
  local NOT_RUN = '{"status":"error","error":"Processing error: not run: the task '
  local left, edges, unique = flow .. '_left', flow .. '_edges', beside(flow, 'unique')
  local fresh = {}
  for i = 1, #fields, 2 do fresh[fields[i]] = fields[i + 1] end
  local function result_of(id) return fresh[id] or redis.call('HGET', output, id) end
  local function not_run(id, text)
    return NOT_RUN .. string.sub(cjson.encode(id), 2, -2) .. text .. '"}'
  end
  -- Return the answer of a step that does not run because of an error: it names the task that failed first.
  local function consequence(id, result)
    if string.sub(result, 1, #NOT_RUN) == NOT_RUN then return result end
    local text = string.match(result, '^{"status":"error","error":"(.*)"}$') or 'no reason'
    -- A blank is neither inside an escape nor inside a character.
    if #text > 1000 then text = (string.match(string.sub(text, 1, 1000), '^(.*) ') or '') .. ' …' end
    return not_run(id, ' failed: ' .. text)
  end
  -- Put results in the place of the inputs of a step. Returns the raw task, and the id of an input without a result.
  local function filled(raw, nonce)
    local missing
    local text = string.gsub(raw, '{"%$result":"' .. nonce .. ':%x*:(%x*)"}', function(hex)
      local id = string.gsub(hex, '%x%x', function(byte) return string.char(tonumber(byte, 16)) end)
      local result = result_of(id)
      if not result then
        missing = id
      else
        return is_success(result) and string.sub(result, #SUCCESS + 1, -2) or 'null'
      end
    end)
    return text, missing
  end
  local function leave(step)
    redis.call('HDEL', flow, step)
    redis.call('HDEL', left, step)
  end
  local function fail(step, answer)
    leave(step)
    end_unique(unique, step)
    fields[#fields + 1] = step
    fields[#fields + 1] = answer
    fresh[step] = answer
  end
  local function release(step, nonce, list)
    local raw, missing = redis.call('HGET', flow, step) or ''
    local cancelled = string.match(raw, '^!(.*)$')
    if not cancelled then raw, missing = filled(raw, nonce) end
    if cancelled then
      fail(step, cancelled)
    elseif missing then
      fail(step, not_run(missing, ' has no result any more'))
    elseif type(redis.pcall('RPUSH', list, raw)) == 'table' then
      fail(step, not_run(step, ' cannot be pushed to its list'))
    else
      leave(step)
    end
  end
  local at = 1
  while at < #fields do
    local id, result = fields[at], fields[at + 1]
    local stem = #id .. ':' .. id
    local first, last = '[' .. stem .. ':', '(' .. stem .. ';'
    local found = redis.call('ZRANGEBYLEX', edges, first, last)
    if #found > 0 then redis.call('ZREMRANGEBYLEX', edges, first, last) end
    for _, edge in ipairs(found) do
      local mark, step = string.match(string.sub(edge, #stem + 2), '^(%d+):(.*)$')
      local count, own, how, nonce, list =
        string.match(redis.call('HGET', left, step) or '', '^(%d+) (%d+) (%l+) (%x+) (.*)$')
      if own and own == mark then
        if how == 'fail' and not is_success(result) then
          fail(step, consequence(id, result))
        elseif count == '1' then
          release(step, nonce, list)
        else
          redis.call('HSET', left, step, table.concat({count - 1, own, how, nonce, list}, ' '))
        end
      end
    end
    at = at + 2
  end
  if redis.call('EXISTS', flow) == 0 then redis.call('DEL', left, edges) end
end

-- Write and announce the answers in `fields` from the position `first`.
local function write_answers(output, fields, first, ttl, channel)
  local own, ids = {}, {}
  for i = first, #fields, 2 do
    ids[#ids + 1] = fields[i]
    own[#own + 1] = fields[i]
    own[#own + 1] = fields[i + 1]
  end
  if #ids == 0 then return end
  for start = 1, #own, 4000 do
    redis.call('HSET', output, unpack(own, start, math.min(start + 3999, #own)))
  end
  expire_results(output, ttl, own)
  redis.pcall('PUBLISH', channel, cjson.encode(ids))
end
