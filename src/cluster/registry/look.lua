-- Looks at a node's signs of life. KEYS: lease, reaped. ARGV: milliseconds that a mark stays, a value that no look has used.
-- Answers lease and mark, false for a mark that is not there, and the replication id of this server.
-- There is a write in it: a server that takes none takes no renewals either, and says nothing of who lives.
local lease = redis.call('GET', KEYS[1])
if not lease and redis.call('EXISTS', KEYS[2]) == 0 then
  -- That there is nothing would look the same each time that Redis forgets. A question stands until it does, or the node renews.
  lease = ARGV[2]
  redis.call('SET', KEYS[1], lease, 'PX', ARGV[1])
end
local is_marked = redis.call('PEXPIRE', KEYS[2], ARGV[1]) == 1
local id = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
return {lease, is_marked and redis.call('GET', KEYS[2]), id}
