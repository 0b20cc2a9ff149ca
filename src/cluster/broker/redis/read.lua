-- Reads where a channel is and what came after an offset, as of one moment.
-- KEYS: meta, stream. ARGV: the offset after which to read; most messages, 0 for none; most bytes, which the last message may
-- pass; the longest frame.
-- Answers epoch, offset and epochs; ids with their frames, empty for what is none or too long; whether there may be more.
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'offset', 'epochs')
if meta[1] and not (string.match(meta[1], '^%x%x%x%x%x%x%x%x$') and string.match(meta[2] or '', '^%d+$') and #meta[2] < 16)
  or #(meta[3] or '') > 400 then
  return redis.error_reply('WRONGTYPE ' .. KEYS[1] .. ' holds what no node has written')
end
local count, bytes, longest, found = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), {}
-- Whatever its second number, an id with the offset itself is behind us.
local after, ask, more = ARGV[1] .. '-18446744073709551615', 8, count > 0
while more and count > 0 and bytes > 0 do
  ask = math.min(ask, count)
  local range, had = redis.call('XRANGE', KEYS[2], '(' .. after, '+', 'COUNT', ask), bytes
  for _, entry in ipairs(range) do
    if bytes <= 0 then break end
    local fields = entry[2]
    local frame = #fields == 2 and fields[1] == 'f' and #fields[2] <= longest and fields[2] or ''
    table.insert(found, {entry[1], frame})
    after, count, bytes = entry[1], count - 1, bytes - #frame - 64
  end
  more = bytes <= 0 or #range == ask
  -- As many as fit if they are as long as these.
  ask = math.max(1, math.min(64, math.floor(bytes / math.max(1, had - bytes) * #range)))
end
return {meta, found, more and 1 or 0}
