-- Accepts a message for a channel: next offset, append to the stream, publish. Atomic, so that order is one for all.
-- KEYS: meta, stream. ARGV: channel, frame, entries kept, milliseconds kept, epoch to begin if there is none, PUBLISH or
-- SPUBLISH.
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch then
  epoch = ARGV[5]
  redis.call('HSET', KEYS[1], 'epoch', epoch)
  redis.call('DEL', KEYS[2])
end
local offset = redis.call('HINCRBY', KEYS[1], 'offset', 1)
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], offset .. '-0', 'f', ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
-- The offset outlives the stream by far: while anybody remembers it, it must not begin anew.
redis.call('PEXPIRE', KEYS[1], ARGV[4] * 1440)
redis.call(ARGV[6], ARGV[1], epoch .. ' ' .. offset .. ' ' .. ARGV[2])
return {epoch, offset}
