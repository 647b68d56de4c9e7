-- Remove tasks from the head of the queue, unless it is paused.
-- KEYS 1 waiting, 2 paused; with priorities, 3 … the lists of all but `default`
-- ARGV 1 limit; with priorities, 2 their order, 3 their turns, 4 the next turn (see shares_of)
-- Returns {paused, tasks}, with paused 1 or 0; with priorities {paused, {number of a priority, tasks}, …}, in their order.
if redis.call('EXISTS', KEYS[2]) == 1 then
  return ARGV[2] and {1} or {1, {}}
end
if not ARGV[2] then
  return {0, redis.call('LPOP', KEYS[1], ARGV[1]) or {}}
end
local lengths = {[0] = redis.call('LLEN', KEYS[1])}
for i = 3, #KEYS do lengths[i - 2] = redis.call('LLEN', KEYS[i]) end
local shares, found = shares_of(lengths, ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[1])), {0}
for digit in string.gmatch(ARGV[2], '%d') do
  local number = tonumber(digit)
  if shares[number] > 0 then
    found[#found + 1] = {number, redis.call('LPOP', number == 0 and KEYS[1] or KEYS[number + 2], shares[number])}
  end
end
return found
