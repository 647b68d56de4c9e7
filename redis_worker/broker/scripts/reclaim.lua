-- Return all tasks of a worker to the head of their queue, or of the list of their priority, in order, and retire the worker.
-- KEYS 1 workers, 2 retired, 3 inflight of that worker, 4 waiting, 5 attempts, 6 arrived of that worker,
--      7 presence, 8 claimants, 9 in-flight list of a worker of an early version, 10 large of one of the version
--      before: a set of numbers of tasks, each alone in a list, 11 bundles of that worker
-- ARGV 1 worker, 2 ms for which it stays retired (0: not at all, nothing can arrive late), 3 ms for which counts
--      are kept, 4 force: 1 if the worker itself gives up, 0 if its lease must have expired
-- Returns the number of tasks returned, or -1 if the worker has renewed its lease meanwhile, or nothing was to do.
-- Tasks are charged for their worker's death, or stay in flight until they can be. A worker that cannot be retired
-- stays in `workers`, and the next sweep finds it again.
local wrong = mistyped('input', KEYS[4], 'list') or damage(KEYS[3], 'hash', KEYS[6], 'list', KEYS[9], 'list')
  or damage(KEYS[10], 'set', KEYS[11], 'hash')
if wrong then return wrong end
local numbers, lists = numbers_in(KEYS[3], KEYS[11]), {}
for _, number in ipairs(redis.call('SMEMBERS', KEYS[10])) do
  if is_number(number) then numbers[#numbers + 1] = tonumber(number) end
end
table.sort(numbers)
if #numbers > 0 and numbers[#numbers] >= SPAN then
  for i, name in ipairs(priorities_in(KEYS[3])) do
    lists[i] = list_with(name, KEYS[1])
    wrong = mistyped('input', lists[i], 'list')
    if wrong then return wrong end
  end
end
local force = ARGV[4] == '1'
local workers = redis.call('TYPE', KEYS[1]).ok
if not force and workers ~= 'zset' and workers ~= 'none' then return damage(KEYS[1], 'zset') end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ends = workers == 'zset' and redis.call('ZSCORE', KEYS[1], ARGV[1])
if ends and not force and tonumber(ends) > now then
  return -1
end
-- A name in neither registry may be that of a living worker, whose entry was deleted: overdue.lua enters it again.
if not ends and not force and type(redis.pcall('ZSCORE', KEYS[2], ARGV[1])) ~= 'string' then
  return -1
end
if not force and redis.call('EXISTS', KEYS[3], KEYS[9], KEYS[10], KEYS[11]) > 0 then
  wrong = damage(KEYS[5], 'hash')
  if wrong then return wrong end
end

if redis.call('TYPE', KEYS[7]).ok == 'hash' then redis.call('HDEL', KEYS[7], ARGV[1]) end
local count = 0
-- Arrived tasks were not claimed and did not run: they are not charged.
while redis.call('LMOVE', KEYS[6], KEYS[4], 'RIGHT', 'LEFT') do
  count = count + 1
end
local charged = 0
local function charge(raw)
  count = count + 1
  if not force then
    add_to(KEYS[5], 'd' .. digest(raw), 1)
    charged = charged + 1
  end
end
for i = #numbers, 1, -1 do
  local alone = list_of(KEYS[10], numbers[i])
  local raw = task_in_flight(KEYS[3], KEYS[11], numbers[i]) or redis.pcall('LINDEX', alone, 0)
  if type(raw) == 'string' then
    redis.call('LPUSH', lists[math.floor(numbers[i] / SPAN)] or KEYS[4], raw)
    charge(raw)
  end
  end_flight(KEYS[3], KEYS[11], numbers[i])
  redis.call('DEL', alone)
end
empty_bundles()
redis.call('DEL', KEYS[3], KEYS[10])
while true do
  local raw = redis.call('LMOVE', KEYS[9], KEYS[4], 'RIGHT', 'LEFT')
  if not raw then break end
  charge(raw)
end
if charged > 0 and redis.call('PTTL', KEYS[5]) < tonumber(ARGV[3]) then
  redis.call('PEXPIRE', KEYS[5], ARGV[3])
end
if ends then
  if ARGV[2] == '0' or not damage(KEYS[2], 'zset') then
    redis.call('ZREM', KEYS[1], ARGV[1])
    if ARGV[2] ~= '0' then redis.call('ZADD', KEYS[2], now + ARGV[2], ARGV[1]) end
  elseif count == 0 then
    return -1
  end
end
if ARGV[2] == '0' then
  redis.pcall('ZREM', KEYS[8], ARGV[1])  -- it may hold another type: overdue.lua reports that
end
return count
