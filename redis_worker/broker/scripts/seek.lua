-- Find waiting tasks that hold a text, a page at a time from the tail: what is claimed or appended meanwhile moves no task
-- that is still to be seen past the page.
-- KEYS 1 waiting
-- ARGV 1 number of tasks after the page, 2 the text, empty for all
-- Returns {number of tasks in the page, the tasks found}; no task in the page means the end.
local wrong = mistyped('input', KEYS[1], 'list')
if wrong then return wrong end
local STEP, MOST, MOST_BYTES = 100, 5000, 1048576
local after, count, bytes, found = tonumber(ARGV[1]), 0, 0, {}
while count < MOST and bytes < MOST_BYTES do
  local tasks = redis.call('LRANGE', KEYS[1], -after - count - STEP, -after - count - 1)
  for _, raw in ipairs(tasks) do
    bytes = bytes + #raw
    if string.find(raw, ARGV[2], 1, true) then found[#found + 1] = raw end
  end
  count = count + #tasks
  if #tasks < STEP then break end
end
return {count, found}
