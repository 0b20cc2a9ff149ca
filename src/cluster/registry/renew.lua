-- Renews a node's lease, unless others have taken it for dead. KEYS: lease, reaped, records. ARGV: what it says of itself,
-- milliseconds that Redis keeps it. Answers -1 if the node is reaped, else how many records of it there are.
if redis.call('EXISTS', KEYS[2]) == 1 then return -1 end
local renewed = redis.pcall('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if renewed.err then
  -- A Redis that is full writes nothing new. A lease that is there goes on all the same, since after a write it lets all others
  -- of a script pass.
  if redis.call('EXISTS', KEYS[1]) == 0 then return renewed end
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return redis.call('HLEN', KEYS[3])
