-- Reads where a channel is and what came after an offset, as of one moment.
-- KEYS: meta, stream. ARGV: the id after which to read, most messages.
return {
  redis.call('HMGET', KEYS[1], 'epoch', 'offset', 'epochs'),
  redis.call('XRANGE', KEYS[2], '(' .. ARGV[1], '+', 'COUNT', ARGV[2]),
}
