-- Put before every script: what they share.

-- A script that fails half-way is not undone. So each of them looks, before it changes anything, whether the keys that
-- it is going to write hold what they should, and returns the error where one of them does not. The broker knows it.
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

-- The same for a key that is not derived from others: an input list, or an output hash.
local function mistyped(role, key, kind)
  local found = redis.call('TYPE', key).ok
  if found ~= kind and found ~= 'none' then
    return redis.error_reply('WRONGTYPE the ' .. role .. ' key ' .. key .. ' holds a ' .. found .. ', not a ' .. kind)
  end
end

local digest = redis.sha1hex or function(raw) return raw end

-- A count that a key should hold; 0 where it holds something else.
local function count_in(text)
  return tonumber(string.match(text or '', '^%d%d?%d?%d?%d?%d?%d?%d?%d?$') or 0)
end

-- How many workers died holding the task `raw`, and how often it was tried again, as the hash `attempts` tells.
local function counts_of(attempts, raw)
  local name = digest(raw)
  local counts = redis.call('HMGET', attempts, 'd' .. name, 'r' .. name)
  return count_in(counts[1]), count_in(counts[2])
end

-- Add to a count, which is begun anew where it is none.
local function add_to(hash, field, number)
  if type(redis.pcall('HINCRBY', hash, field, number)) == 'table' then
    redis.call('HSET', hash, field, math.max(0, number))
  end
end

-- Drop dead letters that are too many, and count them. Where that cannot be, none are dropped: returns the error.
local function drop_oldest(dead, most, dropped)
  local surplus = redis.call('LLEN', dead) - tonumber(most)
  if surplus > 0 then
    local wrong = damage(dropped, 'string')
    if wrong then return wrong end
    if type(redis.pcall('INCRBY', dropped, surplus)) == 'table' then
      redis.call('SET', dropped, surplus)  -- it was no number
    end
    redis.call('LTRIM', dead, surplus, -1)
  end
end
