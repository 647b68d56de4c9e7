-- Append events to the stream that every server of WebSocket clients reads; it keeps only the last ones.
-- KEYS 1 events
-- ARGV 1 number of events kept, about; then channel and data, a JSON value, of each event
-- Returns the ids, in order.
local wrong = damage(KEYS[1], 'stream')
if wrong then return wrong end
local ids = {}
for i = 2, #ARGV, 2 do
  ids[#ids + 1] = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'channel', ARGV[i], 'data', ARGV[i + 1])
end
return ids
