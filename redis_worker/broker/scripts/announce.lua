-- Store the description of a supervisor, with the time; periodically delete those silent for long.
-- KEYS 1 supervisors
-- ARGV 1 id, 2 description, a JSON object, not empty; `published_at`, in s of the server's clock, is added to it;
--      3 seconds of silence after which others are deleted, 0: skip this check;
--      4 the same for predecessors, which have the name and host in ARGV 5 and 6
--      5 and 6 name and host of this supervisor
-- Returns 1.
local wrong = damage(KEYS[1], 'hash')
if wrong then return wrong end
local time = redis.call('TIME')
local at = string.format(',"published_at":%s.%03d}', time[1], math.floor(time[2] / 1000))
redis.call('HSET', KEYS[1], ARGV[1], string.sub(ARGV[2], 1, -2) .. at)
if ARGV[3] ~= '0' then
  local all = redis.call('HGETALL', KEYS[1])
  for i = 1, #all, 2 do
    local silent = time[1] - (tonumber(string.match(all[i + 1], '"published_at":([%d.]+)}$')) or 0)
    if silent > tonumber(ARGV[3]) then
      redis.call('HDEL', KEYS[1], all[i])
    elseif silent > tonumber(ARGV[4]) then
      local read, entry = pcall(cjson.decode, all[i + 1])
      if read and type(entry) == 'table' and entry.name == ARGV[5] and entry.host == ARGV[6] then
        redis.call('HDEL', KEYS[1], all[i])
      end
    end
  end
end
return 1
