-- Fire an instant, unless it was fired before, or the overlap rule forbids it.
-- KEYS 1 fired, 2 running, 3 runs, 4 queued, 5 record, 6 ended; for a job that pushes: 7 its list
-- ARGV 1 kind: 'due' the instant 2, 'queued' the first queued one, 'hand' now; 3 name of the run,
--      4 its lease in ms, 5 overlap, 6 worker, 7 most queued instants, 8 number of instants kept,
--      9 the next instant for the record, or ''; for a job that pushes: 10 the task
-- Returns {now in ms, verdict, ms until it is due if early or the instant if fired, lost runs …}
--   0 early, 1 fired, 2 fired before, 3 skipped, 4 queued, 5 skipped because too many are queued,
--   6 nothing is queued, 7 queued instants must wait
local wrong = damage(KEYS[1], 'zset', KEYS[2], 'zset', KEYS[3], 'hash', KEYS[4], 'zset', KEYS[5], 'hash', KEYS[6], 'list')
  or (KEYS[7] and mistyped('input', KEYS[7], 'list'))
if wrong then return wrong end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local which, run, overlap = ARGV[1], ARGV[3], ARGV[5]
local instant = tonumber(ARGV[2])
local pushes = KEYS[7] ~= nil

local function text(number) return string.format('%.0f', number) end
local function count(outcome) add_to(KEYS[5], 'count:' .. outcome, 1) end
-- All instants up to it count as fired.
local function floor() return tonumber(redis.call('HGET', KEYS[5], 'floor') or 0) or 0 end
local function remember()
  redis.call('ZADD', KEYS[1], instant, text(instant))
  local surplus = redis.call('ZCARD', KEYS[1]) - tonumber(ARGV[8])
  if surplus > 0 then
    local old = redis.call('ZRANGE', KEYS[1], surplus - 1, surplus - 1)[1]
    redis.call('ZREMRANGEBYRANK', KEYS[1], 0, surplus - 1)
    redis.call('HSET', KEYS[5], 'floor', text(math.max(floor(), tonumber(old) or 0)))
  end
end

-- A repeated call: its reply was lost.
local record = redis.call('ZSCORE', KEYS[2], run) and redis.call('HGET', KEYS[3], run)
if record then
  redis.call('ZADD', KEYS[2], now + ARGV[4], run)
  return {now, 1, tonumber(string.match(record, '^%S+ (%d+)')) or instant}
end

local ended = {}
for _, name in ipairs(redis.call('LRANGE', KEYS[6], 0, -1)) do ended[name] = true end
-- A call that was repeated, and arrives after its run has ended, or is presumed lost: another instant is not its own.
if ended[run] or (which ~= 'due' and ended['lost ' .. run]) then return {now, which == 'queued' and 6 or 2, 0} end

-- Runs of dead processes. A run with a recorded outcome (it went on past its time limit) is not reported.
local lost = {}
local gone = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now)
for _, name in ipairs(gone) do
  local its, start, where = string.match(redis.call('HGET', KEYS[3], name) or '', '^%S+ (%d+) (%d+) (.*)$')
  redis.call('ZREM', KEYS[2], name)
  redis.call('HDEL', KEYS[3], name)
  if not ended[name] then
    redis.call('LPUSH', KEYS[6], 'lost ' .. name)
    if its then
      redis.call('HSET', KEYS[5], 'instant', its, 'started', start, 'finished', text(now), 'duration', '',
        'outcome', 'lost', 'error', 'its process is gone, or was cut off from Redis', 'worker', where)
    end
    count('lost')
    lost[#lost + 1] = where or name
  end
end
local alive = redis.call('ZCARD', KEYS[2])
if #lost > 0 then redis.call('LTRIM', KEYS[6], 0, 99) end
if ARGV[9] ~= '' and not (which == 'due' and instant > now) then redis.call('HSET', KEYS[5], 'next', ARGV[9]) end

if which == 'due' then
  if instant > now then return {now, 0, instant - now, unpack(lost)} end
  if instant <= floor() or redis.call('ZSCORE', KEYS[1], text(instant)) then
    -- Perhaps fired by this very call: its reply was lost, and the run, which has not begun, has been
    -- presumed lost before the repeated call: fire it now.
    if redis.call('LREM', KEYS[6], 0, 'lost ' .. run) == 0 then return {now, 2, 0, unpack(lost)} end
    add_to(KEYS[5], 'count:lost', -1)
    overlap = 'allow'
  end
  remember()
  if not pushes and overlap == 'skip' and alive > 0 then
    count('skipped')
    return {now, 3, 0, unpack(lost)}
  end
  if not pushes and overlap == 'queue' then
    local waiting = redis.call('ZCARD', KEYS[4])
    if waiting >= tonumber(ARGV[7]) then
      count('skipped')
      return {now, 5, 0, unpack(lost)}
    elseif alive + waiting > 0 then
      redis.call('ZADD', KEYS[4], instant, text(instant))
      return {now, 4, 0, unpack(lost)}
    end
  end
elseif which == 'queued' then
  local first = redis.call('ZRANGE', KEYS[4], 0, 0)[1]
  if not first then return {now, 6, 0, unpack(lost)} end
  -- Even if runs may overlap, queued (missed) instants run one after the other.
  local before = alive
  if overlap == 'allow' then
    before = 0
    for _, its in ipairs(redis.call('HVALS', KEYS[3])) do
      if string.sub(its, 1, 7) == 'queued ' then before = before + 1 end
    end
  end
  if before > 0 then return {now, 7, 0, unpack(lost)} end
  redis.call('ZREM', KEYS[4], first)
  instant = tonumber(first) or now
else
  instant = now
  if not pushes and overlap ~= 'allow' and alive > 0 then return {now, 3, 0, unpack(lost)} end
end

if pushes then
  redis.call('RPUSH', KEYS[7], ARGV[10])
  count('success')
  redis.call('HSET', KEYS[5], 'instant', text(instant), 'started', text(now), 'finished', text(now), 'duration', 0,
    'outcome', which == 'hand' and 'success by hand' or 'success', 'error', '', 'worker', ARGV[6])
else
  redis.call('ZADD', KEYS[2], now + ARGV[4], run)
  redis.call('HSET', KEYS[3], run, which .. ' ' .. text(instant) .. ' ' .. text(now) .. ' ' .. ARGV[6])
end
return {now, 1, instant, unpack(lost)}
