-- Removes records of a dead node whose `$disconnect` is accepted. KEYS: lease, reaped, records. ARGV: the reaper's mark, its next
-- one, milliseconds that it stays, ids.
-- Answers 0 if the node is not this reaper's any more, 1 if there are more records, 2 if it is done.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
if ARGV[4] then redis.call('HDEL', KEYS[3], unpack(ARGV, 4)) end
local is_done = redis.call('EXISTS', KEYS[3]) == 0
-- A removal first: a Redis that is full lets the mark pass then.
if is_done then redis.call('DEL', KEYS[1]) end
redis.call('SET', KEYS[2], is_done and 'done' or ARGV[2], 'PX', ARGV[3])
return is_done and 2 or 1
