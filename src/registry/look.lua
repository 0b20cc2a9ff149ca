-- Looks at a node's signs of life. KEYS: lease, reaped. ARGV: milliseconds that a mark stays.
-- Answers lease and mark, false for one that is not there, and the replication id of this server.
-- It begins with a write: a server that takes none takes no renewals either, and says nothing of who lives.
local is_marked = redis.call('PEXPIRE', KEYS[2], ARGV[1]) == 1
local id = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
return {redis.call('GET', KEYS[1]), is_marked and redis.call('GET', KEYS[2]), id}
