-- Delete all waiting tasks. LLEN comes first: it fails if the key does not hold a list.
-- KEYS 1 waiting, 2 unique
-- Returns the number of tasks deleted.
local count = redis.call('LLEN', KEYS[1])
if redis.call('EXISTS', KEYS[2]) == 1 then
  for first = 0, count - 1, 1000 do
    for _, raw in ipairs(redis.call('LRANGE', KEYS[1], first, first + 999)) do drop_unique(KEYS[2], raw) end
  end
end
redis.call('UNLINK', KEYS[1])
return count
