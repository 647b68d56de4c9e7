-- Delete all waiting tasks, and the parked steps of flows. LLEN comes first: it fails if the key does not hold a list.
-- KEYS 1 waiting, 2 unique
-- Returns the number of tasks deleted.
local count = redis.call('LLEN', KEYS[1])
local flow = beside(KEYS[2], 'flow')
local is_unique = redis.call('EXISTS', KEYS[2]) == 1
if is_unique then
  for first = 0, count - 1, 1000 do
    for _, raw in ipairs(redis.call('LRANGE', KEYS[1], first, first + 999)) do drop_unique(KEYS[2], raw) end
  end
end
if redis.call('TYPE', flow).ok == 'hash' then
  local steps = redis.call('HKEYS', flow)
  for _, id in ipairs(is_unique and steps or {}) do end_unique(KEYS[2], id) end
  redis.call('UNLINK', flow, flow .. '_left', flow .. '_edges')
  count = count + #steps
end
redis.call('UNLINK', KEYS[1])
return count
