-- Delete all waiting tasks. LLEN comes first: it fails if the key does not hold a list.
-- KEYS 1 waiting
-- Returns the number of tasks deleted.
local count = redis.call('LLEN', KEYS[1])
redis.call('UNLINK', KEYS[1])
return count
