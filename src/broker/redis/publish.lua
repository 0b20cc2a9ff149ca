-- Accepts a message for a channel: next offset, append to the stream, publish. Atomic, so that order is one for all.
-- KEYS: meta, stream, and, for a message that must not be accepted twice, where its offset is remembered.
-- ARGV: channel, frame, entries kept, milliseconds kept, epoch to begin if need be, PUBLISH or SPUBLISH, milliseconds for
-- which the offset is remembered, the replication id that the caller believes this server to have.
-- Answers epoch, offset, whether it had been accepted before, the true id.
if KEYS[3] then
  local first = redis.call('GET', KEYS[3])
  if first then return {'', tonumber(first), 1, ARGV[8]} end
end
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'server', 'offset', 'epochs')
local epoch, server = meta[1], ARGV[8]
if not epoch or meta[2] ~= server then
  server = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
end
if not epoch or meta[2] ~= server then
  -- The channel is new, or this server is not the one that has counted so far, or not whole: it was started again, or was a
  -- replica that took over. What it holds is the truth from here on; where that began, nodes read in the list of epochs.
  if not epoch then redis.call('DEL', KEYS[2]) end
  epoch = ARGV[5]
  local epochs = (meta[4] or '') .. epoch .. '@' .. (meta[3] or 0) .. ' '
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'server', server, 'epochs', string.sub(epochs, -200))
end
local offset = redis.call('HINCRBY', KEYS[1], 'offset', 1)
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], offset .. '-0', 'f', ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
-- The offset outlives the stream by far: while anybody remembers it, it must not begin anew.
redis.call('PEXPIRE', KEYS[1], ARGV[4] * 1440)
if KEYS[3] then redis.call('SET', KEYS[3], offset, 'PX', ARGV[7]) end
redis.call(ARGV[6], ARGV[1], epoch .. ' ' .. offset .. ' ' .. ARGV[2])
return {epoch, offset, 0, server}
