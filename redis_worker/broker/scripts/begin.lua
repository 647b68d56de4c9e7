-- Decide which of the messages just claimed may run: not those completed before under the same id, and not
-- those with an id that another message is running under. The latter are delayed, uncharged.
-- KEYS 1 inflight, 2 done, 3 begun, 4 workers, 5 delayed, 6 bundles
-- ARGV 1 worker, 2 stem of the in-flight keys, 3 suffix of a hash of tasks, 4 of a hash of bundles,
--      5 delay in ms; then number, id, token,
--      busy ('1' if this worker is running the id) for each
-- Returns for each 0 (run it), 1 (completed before), 2 (delayed) or 3 (to be delayed, but not in flight although the
-- worker has its lease: see settle.lua)
local wrong = damage(KEYS[1], 'hash', KEYS[2], 'zset', KEYS[3], 'hash', KEYS[4], 'zset', KEYS[5], 'zset')
if wrong then return wrong end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- A begun message counts as running only while its worker has a lease and has it in flight: no lock can be
-- left behind.
local function is_handled_elsewhere(id)
  local holder = redis.call('HGET', KEYS[3], id)
  if not holder then return false end
  local split = string.find(holder, '\n', 1, true)
  if not split then return false end
  local worker, held = string.sub(holder, 1, split - 1), string.sub(holder, split + 1)
  if worker == ARGV[1] or not redis.call('ZSCORE', KEYS[4], worker) then return false end
  return redis.pcall('HEXISTS', ARGV[2] .. worker .. ARGV[3], held) == 1
    or is_number(held) and is_bundled(ARGV[2] .. worker .. ARGV[4], held)
    -- A worker of an early version has a list of tasks.
    or type(redis.pcall('LPOS', ARGV[2] .. worker, held)) == 'number'
end

local verdicts = {}
for i = 6, #ARGV, 4 do
  local number, id, token, busy = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3] == '1'
  local remembered = redis.call('ZSCORE', KEYS[2], id)
  if remembered and tonumber(remembered) > now then
    verdicts[#verdicts + 1] = 1
  elseif busy or is_handled_elsewhere(id) then
    local raw = task_in_flight(KEYS[1], KEYS[6], number)
    if raw then
      redis.call('ZADD', KEYS[5], now + ARGV[5], token .. ':' .. raw)
      end_flight(KEYS[1], KEYS[6], number)
      verdicts[#verdicts + 1] = 2
    else
      verdicts[#verdicts + 1] = redis.call('ZSCORE', KEYS[4], ARGV[1]) and 3 or 2
    end
  else
    redis.call('HSET', KEYS[3], id, ARGV[1] .. '\n' .. number)
    verdicts[#verdicts + 1] = 0
  end
end
empty_bundles()
return verdicts
