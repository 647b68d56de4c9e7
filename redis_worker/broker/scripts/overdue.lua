-- List workers with an expired lease, and retired ones still checked, including those checked for the last time.
-- A worker that is only in `claimants` has lost its entry: it gets one more lease, which it renews if alive.
-- KEYS 1 workers, 2 retired, 3 claimants, then the other derived keys
-- ARGV 1 lease of a worker missing from `claimants`, in ms, 2 stem of the in-flight keys,
--      3 suffix of a hash of tasks, 4 of a list of arrived tasks, 5 of a hash of bundles
-- Returns {dead workers, retired workers, those of them to be removed if they hold nothing,
--          {workers that had lost their entry}, {the type of each key}, ms until another lease or retirement ends, or -1}
local LONGEST = 86400000
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local usable, types = {}, {}
for i, key in ipairs(KEYS) do
  types[i] = redis.call('TYPE', key).ok
  usable[i] = types[i] == 'zset' or types[i] == 'none'
end

-- Names that may not be text are entered only if they hold tasks; so are all names while `retired`
-- cannot be read.
local function may_be_entered(worker)
  if usable[2] and not string.find(worker, '[\128-\255]') then return true end
  local stem = ARGV[2] .. worker
  return redis.call('EXISTS', stem .. ARGV[3], stem .. ARGV[4], stem .. ARGV[5], stem) > 0
end

local found = {}
if usable[1] and usable[3] then
  local entered = usable[2] and {KEYS[1], KEYS[2]} or {KEYS[1]}
  for _, worker in ipairs(redis.call('ZDIFF', 1 + #entered, KEYS[3], unpack(entered))) do
    if may_be_entered(worker) then
      local lease = tonumber(redis.call('ZSCORE', KEYS[3], worker))
      redis.call('ZADD', KEYS[1], now + math.max(0, math.min(lease, LONGEST)), worker)
      found[#found + 1] = worker
    end
  end
  local count = 0
  for _, key in ipairs(entered) do count = count + redis.call('ZCARD', key) end
  if redis.call('ZCARD', KEYS[3]) < count then
    for _, key in ipairs(entered) do
      for _, worker in ipairs(redis.call('ZDIFF', 2, key, KEYS[3])) do
        if may_be_entered(worker) then redis.call('ZADD', KEYS[3], ARGV[1], worker) end
      end
    end
  end
end

local soonest = -1
for i = 1, 2 do
  local ends = usable[i] and redis.call('ZRANGEBYSCORE', KEYS[i], '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1) or {}
  local left = ends[2] and math.min(tonumber(ends[2]) - now, LONGEST)
  if left and (soonest < 0 or left < soonest) then soonest = left end
end

return {
  usable[1] and redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now) or {},
  usable[2] and redis.call('ZRANGE', KEYS[2], 0, -1) or {},
  usable[2] and redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now) or {},
  found,
  types,
  soonest,
}
