-- Lets a channel that nobody listens to any more go with its stream.
-- KEYS: meta. ARGV: channel, NUMSUB or SHARDNUMSUB, milliseconds.
local listeners = redis.pcall('PUBSUB', ARGV[2], ARGV[1])
if not listeners.err and listeners[2] == 0 and redis.call('HDEL', KEYS[1], 'heard') == 1 then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return 0
