-- Remove dead letters from their list; with 'requeue', put their tasks back on the queue, uncharged.
-- KEYS 1 dead, 2 waiting, 3 attempts
-- ARGV 1 'requeue' or 'purge', then letter, raw task for each
-- Returns their number.
local wrong = damage(KEYS[1], 'list') or mistyped('input', KEYS[2], 'list')
if wrong then return wrong end
-- With another type, there are no counts to delete.
local counted = redis.call('TYPE', KEYS[3]).ok == 'hash'
local count = 0
for i = 2, #ARGV, 2 do
  if redis.call('LREM', KEYS[1], 1, ARGV[i]) == 1 then
    count = count + 1
    if ARGV[1] == 'requeue' then
      redis.call('RPUSH', KEYS[2], ARGV[i + 1])
      if counted then
        local name = digest(ARGV[i + 1])
        redis.call('HDEL', KEYS[3], 'd' .. name, 'r' .. name)
      end
    end
  end
end
return count
