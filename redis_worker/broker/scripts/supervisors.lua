-- Read the descriptions of all supervisors.
-- KEYS 1 supervisors
-- Returns the time in ms, then id, description, id, …
local time = redis.call('TIME')
local reply = {time[1] * 1000 + math.floor(time[2] / 1000)}
for _, text in ipairs(redis.call('HGETALL', KEYS[1])) do
  reply[#reply + 1] = text
end
return reply
