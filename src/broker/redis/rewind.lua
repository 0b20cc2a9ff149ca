-- Begins a new epoch where the offset of a channel went backwards (a replica took over that lagged). Once, whoever sees it.
-- KEYS: meta, stream. ARGV: the epoch it was seen in, the offset that was seen, the new epoch.
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'offset')
if meta[1] == ARGV[1] and tonumber(meta[2]) < tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[1], 'epoch', ARGV[3])
end
return redis.call('HMGET', KEYS[1], 'epoch', 'offset')
