-- Submit unique tasks: one whose id, or whose call, is there already is left out.
-- KEYS 1 waiting, 2 delayed, 3 unique, 4 output
-- ARGV 1 channel of delayed tasks, 2 due time in ms, 3 'at' if that is of the server's clock, 'in' if it is from now on,
--      empty for no delay; then for each id, digest of its call (empty: only the id is unique), ms for which the call
--      is unique (0: until it is answered), token, raw
-- Returns for each the id of the task that is there now.
local wrong = mistyped('input', KEYS[1], 'list') or mistyped('output', KEYS[4], 'hash')
  or damage(KEYS[2], 'zset', KEYS[3], 'hash')
if wrong then return wrong end
local due = tonumber(ARGV[2])
if ARGV[3] == 'in' then
  local time = redis.call('TIME')
  due = due + time[1] * 1000 + math.ceil(time[2] / 1000)
end

local ids = {}
for i = 4, #ARGV, 5 do
  local id, key, ms, raw = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 4]
  local owner = begin_unique(KEYS[3], KEYS[4], id, key, ms)
  if not owner then
    if ARGV[3] == '' then
      redis.call('RPUSH', KEYS[1], raw)
    else
      redis.call('ZADD', KEYS[2], due, ARGV[i + 3] .. ':' .. raw)
    end
  end
  ids[#ids + 1] = owner or id
end
if ARGV[3] ~= '' then redis.pcall('PUBLISH', ARGV[1], '') end
return ids
