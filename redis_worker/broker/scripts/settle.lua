-- Write results and dead letters, and acknowledge, in one step, for the tasks the worker still holds.
-- KEYS 1 inflight, 2 deliveries, 3 dead, 4 workers, 5 output (absent when it lies in another slot:
--      there the results have been written before, by write.lua)
-- ARGV 1 channel, 2 how many tasks are only answered: N; then N times raw, field, result; then for each
--      that goes to the dead letters raw, letter, has result ('1' or ''), field, result; last the worker
-- Returns the positions, from 0, of the tasks that have gone to other workers: nothing is written for
-- them. A task that is not held while the worker has its lease was settled before, and the reply lost.
local output = KEYS[5]
if output then
  -- Checked first: a script that fails half-way is not undone.
  local kind = redis.call('TYPE', output).ok
  if kind ~= 'hash' and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE the output key ' .. output .. ' holds a ' .. kind .. ', not a hash')
  end
end

local suspects = redis.call('EXISTS', KEYS[2]) == 1
local digest = redis.sha1hex or function(raw) return raw end
local fields, ids, refused = {}, {}, {}

local function acknowledge(raw, position)
  if redis.call('LREM', KEYS[1], 1, raw) == 0 then
    refused[#refused + 1] = position
    return false
  end
  if suspects then
    redis.call('HDEL', KEYS[2], digest(raw))
  end
  return true
end

local function answer(field, result)
  ids[#ids + 1] = field
  fields[#fields + 1] = field
  fields[#fields + 1] = result
end

local answered = tonumber(ARGV[2])
local first_dead = 3 + 3 * answered
for i = 3, first_dead - 1, 3 do
  if acknowledge(ARGV[i], (i - 3) / 3) then
    answer(ARGV[i + 1], ARGV[i + 2])
  end
end
for i = first_dead, #ARGV - 1, 5 do
  if acknowledge(ARGV[i], answered + (i - first_dead) / 5) then
    redis.call('RPUSH', KEYS[3], ARGV[i + 1])
    if ARGV[i + 2] == '1' then
      answer(ARGV[i + 3], ARGV[i + 4])
    end
  end
end

if output and #fields > 0 then
  for first = 1, #fields, 4000 do
    redis.call('HSET', output, unpack(fields, first, math.min(first + 3999, #fields)))
  end
  -- pcall: a user without a right to the channel still gets results; clients then poll.
  redis.pcall('PUBLISH', ARGV[1], cjson.encode(ids))
end
if #refused > 0 and redis.call('ZSCORE', KEYS[4], ARGV[#ARGV]) then
  return {}
end
return refused
