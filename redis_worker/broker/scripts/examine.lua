-- Read the state of a queue for an operator, at one moment, skipping keys of a wrong type. Changes nothing.
-- KEYS 1 waiting, 2 workers, 3 retired, 4 delayed, 5 dead, 6 dropped, 7 claimants
-- ARGV 1 tolerated age of an expired lease, in ms, 2 tolerated delay of an overdue task, in ms, 3 most workers
--      named, 4 number of waiting tasks to read, 5 most bytes of one of them
-- Returns {now in ms, waiting tasks (of all priorities), live workers, {workers with a lease expired before that, or vanished}, {retired
--      workers}, dead letters, dropped ones, delayed tasks, overdue ones, due time of the first delayed one in ms or
--      -1, {waiting tasks from head to tail, evenly spread}, {workers}}
local FAR = 2 ^ 53
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local depth = redis.call('LLEN', KEYS[1])

local looked_at = {}
local count = math.min(depth, tonumber(ARGV[4]))
for i = 0, count - 1 do
  local raw = redis.call('LINDEX', KEYS[1], count == 1 and 0 or math.floor(i * (depth - 1) / (count - 1)))
  if #raw <= tonumber(ARGV[5]) then looked_at[#looked_at + 1] = raw end
end

-- Return the reply if it has the type `kind`, or `other` if the key holds another type.
local function try(kind, other, ...)
  local reply = redis.pcall(...)
  return type(reply) == kind and not (kind == 'table' and reply.err) and reply or other
end

local gone = try('table', {}, 'ZRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[1], 'LIMIT', 0, ARGV[3])
for i, worker in ipairs(try('table', {}, 'ZDIFF', 3, KEYS[7], KEYS[2], KEYS[3])) do
  if i <= tonumber(ARGV[3]) then gone[#gone + 1] = worker end
end
local waiting = 0
for _, list in ipairs(lists_of(KEYS[1], KEYS[2])) do waiting = waiting + try('number', 0, 'LLEN', list) end
local first = try('table', {}, 'ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')
return {
  now,
  waiting,
  try('number', 0, 'ZCOUNT', KEYS[2], '(' .. now, '+inf'),
  gone,
  try('table', {}, 'ZRANGE', KEYS[3], 0, ARGV[3] - 1),
  try('number', 0, 'LLEN', KEYS[5]),
  tonumber(string.match(try('string', '', 'GET', KEYS[6]), '^%d+$') or 0),
  try('number', 0, 'ZCARD', KEYS[4]),
  try('number', 0, 'ZCOUNT', KEYS[4], '-inf', now - ARGV[2]),
  #first > 0 and math.max(-1, math.min(FAR, tonumber(first[2]))) or -1,
  looked_at,
  try('table', {}, 'ZRANGE', KEYS[2], 0, ARGV[3] - 1),
}
