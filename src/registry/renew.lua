-- Renews a node's lease, unless others have taken it for dead. KEYS: lease, reaped, records. ARGV: what it says of itself, milliseconds.
-- Answers -1 if the node is reaped, else how many records of it there are.
if redis.call('EXISTS', KEYS[2]) == 1 then return -1 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return redis.call('HLEN', KEYS[3])
