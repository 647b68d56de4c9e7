-- Delete all waiting tasks, of all priorities, and the parked steps of flows. LLEN comes first: it fails if a key does
-- not hold a list.
-- KEYS 1 waiting, 2 unique
-- Returns the number of tasks deleted.
local lists, counts, total = lists_of(KEYS[1], KEYS[2]), {}, 0
for i, list in ipairs(lists) do
  counts[i] = redis.call('LLEN', list)
  total = total + counts[i]
end
local is_unique = redis.call('EXISTS', KEYS[2]) == 1
if is_unique then
  for i, list in ipairs(lists) do
    for first = 0, counts[i] - 1, 1000 do
      for _, raw in ipairs(redis.call('LRANGE', list, first, first + 999)) do drop_unique(KEYS[2], raw) end
    end
  end
end
local flow = beside(KEYS[2], 'flow')
if redis.call('TYPE', flow).ok == 'hash' then
  local steps = redis.call('HKEYS', flow)
  for _, id in ipairs(is_unique and steps or {}) do end_unique(KEYS[2], id) end
  redis.call('UNLINK', flow, flow .. '_left', flow .. '_edges')
  total = total + #steps
end
redis.call('UNLINK', unpack(lists))
return total
