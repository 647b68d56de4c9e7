-- What an operator is told of a queue, at one moment, as far as its keys hold what they should. Changes nothing.
-- KEYS 1 waiting, 2 workers, 3 retired, 4 delayed, 5 dead, 6 dropped, 7 claimants
-- ARGV 1 how long a lease may have ended, in ms, 2 how long a delayed task may be overdue, in ms, 3 the most workers
--      named, 4 how many waiting tasks are looked at, 5 the most bytes of one that is
-- Returns {now in ms, how many wait, live workers, {workers whose lease ended before that, or vanished}, {retired
--      workers}, dead letters, dropped ones, delayed tasks, overdue ones, when the first delayed one is due in ms or
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

-- The reply, if it is of the type `kind`; `other` where the key holds something else.
local function try(kind, other, ...)
  local reply = redis.pcall(...)
  return type(reply) == kind and not (kind == 'table' and reply.err) and reply or other
end

local gone = try('table', {}, 'ZRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[1], 'LIMIT', 0, ARGV[3])
for i, worker in ipairs(try('table', {}, 'ZDIFF', 3, KEYS[7], KEYS[2], KEYS[3])) do
  if i <= tonumber(ARGV[3]) then gone[#gone + 1] = worker end
end
local first = try('table', {}, 'ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')
return {
  now,
  depth,
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
