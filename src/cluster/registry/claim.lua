-- Makes one survivor the reaper of a node that is dead, or whose reaper is; the mark also fences the node, should it come back.
-- KEYS: lease, reaped. ARGV: both as the survivor has seen them, empty for one that was not there; the mark; milliseconds that it
-- stays. Answers whether nothing has changed since.
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] or (redis.call('GET', KEYS[2]) or '') ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4])
return 1
