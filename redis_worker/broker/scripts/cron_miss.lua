-- Give up missed instants: all up to one of them count as dealt with.
-- KEYS 1 fired, 2 record
-- ARGV 1 the latest instant dealt with, as the caller knows it, 2 the last one to give up, 3 their number
-- Returns 1, or 0 if another process has dealt with some of them meanwhile: nothing was done.
local wrong = damage(KEYS[1], 'zset', KEYS[2], 'hash')
if wrong then return wrong end
local last = tonumber(redis.call('ZRANGE', KEYS[1], -1, -1)[1] or 0) or 0
local floor = tonumber(redis.call('HGET', KEYS[2], 'floor') or 0) or 0
if math.max(last, floor) ~= tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[2], 'floor', ARGV[2])
add_to(KEYS[2], 'count:missed', ARGV[3])
return 1
