-- Renews a node's lease, unless others have taken it for dead. KEYS: lease, reaped, records. ARGV: what it says of itself, milliseconds.
-- Answers -1 if the node is reaped, else how many records of it there are.
if redis.call('EXISTS', KEYS[2]) == 1 then return -1 end
local renewed = redis.pcall('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if renewed.err then
  -- A Redis that is full writes nothing new. A lease that is there goes on all the same: the node lives.
  if redis.call('PEXPIRE', KEYS[1], ARGV[2]) == 0 then return renewed end
end
return redis.call('HLEN', KEYS[3])
