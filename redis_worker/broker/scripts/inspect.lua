-- Read the state of a queue and its workers, at one moment, skipping derived keys of a wrong type. Writes nothing.
-- KEYS 1 waiting, 2 delayed, 3 dead, 4 dropped, 5 workers, 6 presence, 7 flow, 8 paused
-- ARGV 1 stem of the in-flight keys, 2 suffix of a hash of tasks, 3 of a list of arrived tasks, 4 of a hash of
--      bundles
-- Returns {now in ms, waiting (of all priorities), delayed, dead, dropped, parked, {the type of each key},
--          then for each worker its name, end of its lease in ms, 1 if that rests or 0, number of tasks in flight, its
--          description or ''}
local FAR = 2 ^ 53
local time = redis.call('TIME')
local types = {}
for i, key in ipairs(KEYS) do types[i] = redis.call('TYPE', key).ok end

-- Return the reply if it has the type `kind`, or `other` if the key holds another type.
local function try(kind, other, ...)
  local reply = redis.pcall(...)
  return type(reply) == kind and not (kind == 'table' and reply.err) and reply or other
end

local waiting = 0
for _, list in ipairs(lists_of(KEYS[1], KEYS[2])) do waiting = waiting + redis.call('LLEN', list) end

local found = {
  time[1] * 1000 + math.floor(time[2] / 1000),
  waiting,
  try('number', 0, 'ZCARD', KEYS[2]),
  try('number', 0, 'LLEN', KEYS[3]),
  tonumber(string.match(try('string', '', 'GET', KEYS[4]), '^%d+$') or 0),
  try('number', 0, 'HLEN', KEYS[7]),
  types,
}
local workers = try('table', {}, 'ZRANGE', KEYS[5], 0, -1, 'WITHSCORES')
for i = 1, #workers, 2 do
  local name = workers[i]
  local stem = ARGV[1] .. name
  found[#found + 1] = name
  local ends = math.max(-FAR, math.min(FAR, tonumber(workers[i + 1])))
  found[#found + 1] = ends
  found[#found + 1] = ends % 1 == 0 and 0 or 1
  local bundled = {}
  add_bundled(bundled, stem .. ARGV[4], try('table', {}, 'HKEYS', stem .. ARGV[4]))
  -- The list is that of a worker of an early version; one field of the hash is no task.
  found[#found + 1] = math.max(0, try('number', 0, 'HLEN', stem .. ARGV[2]) - 1)
    + try('number', 0, 'LLEN', stem .. ARGV[3]) + try('number', 0, 'LLEN', stem)
    + #bundled
  found[#found + 1] = try('string', '', 'HGET', KEYS[6], name)
end
return found
