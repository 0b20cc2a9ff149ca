-- Gives up the lease of a node that has left, unless others have taken it for dead. KEYS: lease, reaped. ARGV: milliseconds that the
-- mark stays, which keeps a renewal that is under way from taking the lease again. Answers -1 if the node is reaped.
if redis.call('EXISTS', KEYS[2]) == 1 then return -1 end
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('DEL', KEYS[1]) end
redis.call('SET', KEYS[2], 'left', 'PX', ARGV[1])
return 1
