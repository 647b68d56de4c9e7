-- Write reports of tasks in flight, unless the worker has lost its lease.
-- KEYS 1 workers, 2 beginning of the keys of reports
-- ARGV 1 worker, 2 ms for which a report is kept, then id, report for each
if type(redis.pcall('ZSCORE', KEYS[1], ARGV[1])) ~= 'string' then return 0 end
for i = 3, #ARGV, 2 do
  redis.call('SET', KEYS[2] .. ':' .. ARGV[i], ARGV[i + 1], 'PX', ARGV[2])
end
return 1
