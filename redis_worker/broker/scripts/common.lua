-- Shared functions, put before every script.

-- A failed script is not rolled back. So each one checks, before it changes anything, that the keys it
-- writes hold the right type, and returns the error if one does not. The broker parses this error.
-- Arguments: key, type, key, type, … Returns the error, or nil.
local function damage(...)
  for i = 1, select('#', ...), 2 do
    local key, kind = select(i, ...)
    local found = redis.call('TYPE', key).ok
    if found ~= kind and found ~= 'none' then
      return redis.error_reply('DAMAGED ' .. found .. ' ' .. kind .. ' ' .. key)
    end
  end
end

-- The same for a key that is not derived: an input list, or an output hash.
local function mistyped(role, key, kind)
  local found = redis.call('TYPE', key).ok
  if found ~= kind and found ~= 'none' then
    return redis.error_reply('WRONGTYPE the ' .. role .. ' key ' .. key .. ' holds a ' .. found .. ', not a ' .. kind)
  end
end

-- Return the name of another key of the queue of `key`, a derived key.
local function beside(key, name)
  return (string.match(key, '^.*:') or '') .. name
end

local digest = redis.sha1hex or function(raw) return raw end

-- Return the count in `text`; 0 if it is not a number.
local function count_in(text)
  return tonumber(string.match(text or '', '^%d%d?%d?%d?%d?%d?%d?%d?%d?$') or 0)
end

-- Return the deaths (workers that died holding the task `raw`) and the retries, from the hash `attempts`.
local function counts_of(attempts, raw)
  local name = digest(raw)
  local counts = redis.call('HMGET', attempts, 'd' .. name, 'r' .. name)
  return count_in(counts[1]), count_in(counts[2])
end

-- Add to a count; replace a value that is not a number.
local function add_to(hash, field, number)
  if type(redis.pcall('HINCRBY', hash, field, number)) == 'table' then
    redis.call('HSET', hash, field, math.max(0, number))
  end
end

-- Let results expire. `ttl` is their time to live in s (0: for ever); after a blank, that of errors, if it differs.
-- `fields` holds id, result for each. pcall: servers before Redis 7.4 and Valkey 9 keep them.
local function expire_results(output, ttl, fields)
  if ttl == '0' then return end
  local success, error = string.match(ttl, '^(%d+) ?(%d*)$')
  local groups = {[success] = {}, [error] = {}}
  for i = 1, #fields, 2 do
    local is_error = error ~= '' and string.sub(fields[i + 1], 1, 17) == '{"status":"error"'
    table.insert(groups[is_error and error or success], fields[i])
  end
  groups['0'] = nil
  for seconds, ids in pairs(groups) do
    for first = 1, #ids, 4000 do
      local last = math.min(first + 3999, #ids)
      redis.pcall('HEXPIRE', output, seconds, 'FIELDS', last - first + 1, unpack(ids, first, last))
    end
  end
end

-- End the record of a unique task, if there is one: it is answered or removed.
local function end_unique(unique, id)
  local record = redis.pcall('HGET', unique, 'i:' .. id)
  if type(record) ~= 'string' then return end
  redis.call('HDEL', unique, 'i:' .. id)
  local key, order = string.match(record, '^(%S*) ?(%S*)$')
  if key and key ~= '' then redis.call('HDEL', unique, 'k:' .. key) end
  if order and order ~= '' and redis.call('HGET', unique, 'o:' .. order) == id then
    redis.call('HDEL', unique, 'o:' .. order)
  end
end

-- Begin the record of a unique task; `key` is the digest of its call (empty: only the id is unique), unique for `ms` (0:
-- until it is answered); `order` is the digest of the key whose tasks run one after the other, the last of which this now
-- is, or nil. Returns the id of the task that is there already; then no record is begun.
local function begin_unique(unique, output, id, key, ms, order)
  local function is_there(id)
    return redis.call('HEXISTS', unique, 'i:' .. id) == 1 or redis.call('HEXISTS', output, id) == 1
  end
  local function owner()
    if is_there(id) then return id end
    if key == '' then return nil end
    if ms == '0' then return redis.call('HGET', unique, 'k:' .. key) or nil end
    local other = redis.pcall('GET', unique .. ':' .. key)
    return type(other) == 'string' and is_there(other) and other or nil
  end
  local found = owner()
  if found then return found end
  redis.call('HSET', unique, 'i:' .. id, (ms == '0' and key or '') .. (order and ' ' .. order or ''))
  if order then redis.call('HSET', unique, 'o:' .. order, id) end
  if key ~= '' and ms == '0' then redis.call('HSET', unique, 'k:' .. key, id) end
  if key ~= '' and ms ~= '0' then redis.call('SET', unique .. ':' .. key, id, 'PX', ms) end
end

-- The same for a task that is removed without an answer.
local function drop_unique(unique, raw)
  if not string.find(raw, '"unique"', 1, true) then return end
  local ok, task = pcall(cjson.decode, raw)
  if ok and type(task) == 'table' and type(task.id) == 'string' then end_unique(unique, task.id) end
end

-- Drop and count surplus dead letters. If they cannot be counted, drop none and return the error.
local function drop_oldest(dead, most, dropped)
  local surplus = redis.call('LLEN', dead) - tonumber(most)
  if surplus > 0 then
    local wrong = damage(dropped, 'string')
    if wrong then return wrong end
    if type(redis.pcall('INCRBY', dropped, surplus)) == 'table' then
      redis.call('SET', dropped, surplus)  -- it was not a number
    end
    redis.call('LTRIM', dead, surplus, -1)
  end
end

-- The field of an in-flight hash that holds the number of the last task claimed; numbers only grow. Its value is padded:
-- a text of over 64 bytes makes the server look up all fields by their digests, instead of searching them in turn.
local LAST, LAST_FORMAT = 'last', '%-80d'

local function last_number(inflight)
  local digits = string.match(redis.call('HGET', inflight, LAST) or '', '^(%d+) *%S*$')
  return digits and #digits < 16 and tonumber(digits) or 0
end

-- Large tasks in flight are not in the hash: a script copies and digests whatever it reads. They are in bundles of up to
-- BUNDLE tasks, each a list that no script has to read. The hash `bundles` has for each the number of its first task, a
-- multiple of BUNDLE, and its marks: the sum of 2^p for each position p whose task is in flight. The others are blank.
local BUNDLE = 32

local function list_of(bundles, first)
  return bundles .. ':' .. first
end

-- The bundles that this script has looked at, by their first number, for each hash `bundles`.
local opened = {}

-- Return the bundle that may have the task with this number, nil without one; and the position there, from 0.
local function bundle_of(bundles, number)
  local known = opened[bundles]
  if not known then
    known = {none = redis.call('TYPE', bundles).ok ~= 'hash'}
    opened[bundles] = known
  end
  if known.none then return end
  local whole = number + 0  -- an argument is a text
  local position = whole % BUNDLE
  local first = whole - position
  local bundle = known[first]
  if bundle == nil then
    local marks = redis.call('HGET', bundles, first) or ''
    bundle = #marks < 11 and string.find(marks, '^%d+$') and {marks = tonumber(marks), ended = {}} or false
    known[first] = bundle
  end
  return bundle or nil, position
end

local function has_mark(marks, position)
  return marks % 2 ^ (position + 1) >= 2 ^ position
end

local function is_bundled(bundles, number)
  local bundle, position = bundle_of(bundles, number)
  return bundle and has_mark(bundle.marks, position)
end

-- Return the task in flight with this number; nil without one.
local function task_in_flight(inflight, bundles, number)
  local raw = redis.pcall('HGET', inflight, number)
  if type(raw) ~= 'string' and is_bundled(bundles, number) then
    local position = number % BUNDLE
    raw = redis.pcall('LINDEX', list_of(bundles, number - position), position)
  end
  return type(raw) == 'string' and raw or nil
end

-- End the flight of a task. Returns false if there is none with this number. A script that calls this calls
-- empty_bundles at last.
local function end_flight(inflight, bundles, number)
  local bundle, position = bundle_of(bundles, number)
  if not bundle or not has_mark(bundle.marks, position) then
    return redis.pcall('HDEL', inflight, number) == 1
  end
  bundle.marks = bundle.marks - 2 ^ position
  bundle.ended[#bundle.ended + 1] = position
  return true
end

-- End the flights of tasks in a bundle at once: of the one with this number and of those that follow it there, up to `most`.
-- Returns how many: 0 unless all of them are in flight.
local function end_flights(bundles, number, most)
  local bundle, position = bundle_of(bundles, number)
  local count = math.min(most, BUNDLE - number % BUNDLE)
  local marks = bundle and 2 ^ (position + count) - 2 ^ position
  if not bundle or bundle.marks % 2 ^ (position + count) < marks then return 0 end
  bundle.marks = bundle.marks - marks
  for ended = position, position + count - 1 do bundle.ended[#bundle.ended + 1] = ended end
  return count
end

-- Take the tasks whose flight has ended out of their bundles.
local function empty_bundles()
  for bundles, known in pairs(opened) do
    for first, bundle in pairs(known) do
      if type(bundle) == 'table' and #bundle.ended > 0 then
        local list = list_of(bundles, first)
        if bundle.marks == 0 then
          redis.call('HDEL', bundles, first)
          redis.call('DEL', list)
        else
          redis.call('HSET', bundles, first, bundle.marks)
          -- The memory of a task ends with it. Somebody may have deleted the list.
          for _, position in ipairs(bundle.ended) do redis.pcall('LSET', list, position, '') end
        end
      end
    end
  end
end

local function is_number(text)
  return #text < 16 and string.find(text, '^[1-9]%d*$')
end

-- Add to `numbers` those of the tasks in flight in the bundles that start with the numbers `firsts`.
local function add_bundled(numbers, bundles, firsts)
  for _, first in ipairs(firsts) do
    for position = 0, is_number(first) and first % BUNDLE == 0 and BUNDLE - 1 or -1 do
      if is_bundled(bundles, first + position) then numbers[#numbers + 1] = first + position end
    end
  end
end

-- Return the numbers of the tasks in flight, in the order of their claim.
local function numbers_in(inflight, bundles)
  local numbers = {}
  for _, name in ipairs(redis.call('HKEYS', inflight)) do
    if is_number(name) then numbers[#numbers + 1] = tonumber(name) end
  end
  add_bundled(numbers, bundles, redis.call('HKEYS', bundles))
  table.sort(numbers)
  return numbers
end

-- The priority of a delayed task, at the end of its token.
local PRIORITY = '^%x+@([%w_.-]+):'

-- The list of a priority; `key` is any derived key with a fixed name.
local function list_with(priority, key)
  return beside(key, 'priority:' .. priority)
end

-- Return the lists of waiting tasks, those of all announced priorities in their order.
local function lists_of(waiting, key)
  local lists, has_waiting = {}, false
  local names = redis.pcall('ZRANGE', beside(key, 'priorities'), 0, -1)
  for _, name in ipairs(names.err and {} or names) do
    lists[#lists + 1] = name == 'default' and waiting or list_with(name, key)
    has_waiting = has_waiting or name == 'default'
  end
  if not has_waiting then lists[#lists + 1] = waiting end
  return lists
end

-- The number of a task in flight gives its priority: from i * SPAN on it is the i-th one named in the field LAST,
-- below SPAN it is the queue's own list. Numbers have no more than the 14 digits that Lua writes out.
local SPAN = 1e13

-- Return the names of the priorities that the numbers of a worker stand for.
local function priorities_in(inflight)
  local names = {}
  local text = string.match(redis.call('HGET', inflight, LAST) or '', ' (%S+)$') or ''
  for name in string.gmatch(text, '[^,]+') do names[#names + 1] = name end
  return names
end

-- Return how many tasks to take from each list, up to `limit` in all, as {number of the priority -> count}. `lengths` are
-- those of the lists, `order` and `turns` as in Priorities; `turn` is the next one. The turn of a list without tasks goes to
-- the first one in the order that has some.
local function shares_of(lengths, order, turns, turn, limit)
  local shares, left = {}, 0
  for number, length in pairs(lengths) do
    shares[number] = 0
    left = left + length
  end
  for i = turn, turn + math.min(limit, left) - 1 do
    local number = string.byte(turns, i % #turns + 1) - 48
    for k = 1, #order do
      if shares[number] < lengths[number] then break end
      number = string.byte(order, k) - 48
    end
    shares[number] = shares[number] + 1
  end
  return shares
end
