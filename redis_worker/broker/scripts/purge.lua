-- Delete what waits. LLEN comes first: it refuses a key that holds something else than a list.
-- KEYS 1 waiting
-- Returns how many tasks there were.
local count = redis.call('LLEN', KEYS[1])
redis.call('UNLINK', KEYS[1])
return count
