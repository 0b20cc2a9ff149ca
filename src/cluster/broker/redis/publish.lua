-- Accepts a message for a channel: next offset, append to the stream, publish. Atomic, so that order is one for all.
-- KEYS: meta, stream, and, for a message that must not be accepted twice, where its offset is remembered. On a channel that
-- counts and keeps nothing there is the last alone.
-- ARGV: channel, frame, PUBLISH or SPUBLISH, epoch to begin if need be; of what the stream keeps the most entries, bytes and
-- milliseconds; milliseconds for which the offset is kept while somebody listens; milliseconds for which the message's own
-- offset is remembered; the caller's clock, for a user who may not ask Redis for its own; whether the message is the end of a
-- connection, of which nobody asks where it is; the replication id that the caller believes this server to have.
-- Answers epoch, offset, whether it had been accepted before, the true id.
-- The first write is one that Redis refuses when its memory is full: after a write it lets all others of a script pass.

-- Counted for an entry besides its frame, in bytes: about what Redis needs for it.
local ENTRY = 128
-- The stream is measured and cut in parts of what it may keep.
local PARTS = 4
-- Numbers up to here are written as they are.
local MOST = 1e14

local call, match, frame, epoch, server = redis.call, string.match, ARGV[2], ARGV[4], ARGV[12]
local is_end = ARGV[11] == '1'
local function foreign(key) return redis.error_reply('WRONGTYPE ' .. key .. ' holds what no node has written') end
if not KEYS[2] then
  if not call('SET', KEYS[1], 0, 'NX', 'PX', ARGV[9]) then return {'', 0, 1, server} end
  call(ARGV[3], ARGV[1], frame)
  return {'', 0, 0, server}
end
if KEYS[3] and not is_end then
  local first = call('GET', KEYS[3])
  if first then
    first = tonumber(first)
    if not first or first < 0 or first > MOST then return foreign(KEYS[3]) end
    return {'', first, 1, server}
  end
end

local meta = call('HMGET', KEYS[1], 'epoch', 'server', 'offset', 'bytes', 'part_since', 'part_bytes', 'heard')
local is_new = not meta[1]
local offset = is_new and 0 or tonumber(meta[3])
if not offset or offset < 0 or offset > MOST or not is_new and not match(meta[1], '^%x%x%x%x%x%x%x%x$') then
  return foreign(KEYS[1])
end
local is_another = is_new or meta[2] ~= server
if is_another then
  server = match(call('INFO', 'replication'), 'master_replid:(%x+)')
  is_another = is_new or meta[2] ~= server
end
if not is_another then epoch = meta[1] end
offset = offset + 1

-- The bytes that were counted until now; when the last part began, and the bytes counted then.
local bytes, since, before = tonumber(meta[4]), tonumber(meta[5]), tonumber(meta[6])
local time, stream, age, most, cut = redis.pcall('TIME'), KEYS[2], ARGV[7], ARGV[6], nil
-- An end takes its name with the first write, and gives it back if the stream refuses it.
local function is_taken() return is_end and not call('SET', KEYS[3], offset, 'NX', 'PX', ARGV[9]) end
local function append(...)
  local added = redis.pcall('XADD', stream, ...)
  if is_end and added.err then call('DEL', KEYS[3]) end
  return added.err and added
end
local now = time.err and ARGV[10] + 0 or time[1] * 1000 + math.floor(time[2] / 1000)
if is_new or not (bytes and since and before) or bytes > MOST then bytes, since = 0, nil end
local id, counted = offset .. '-0', bytes + #frame + ENTRY
local payload = epoch .. ' ' .. offset .. ' ' .. frame
local begins = is_another or not since or now - since >= age / PARTS or bytes - before >= most / PARTS
if begins then
  -- A part begins. Of each, `marks` has the first offset, when it came, and the bytes counted before. The oldest goes when all
  -- of it is too old, or when the new one would find no room.
  local known = is_new and {} or call('HMGET', KEYS[1], 'epochs', 'marks')
  local epochs, marks = known[1] or '', since and known[2] or ''
  if #marks > 1000 or #epochs > 400 then return foreign(KEYS[1]) end
  marks = marks .. offset .. ':' .. now .. ':' .. bytes .. ' '
  while true do
    local first_bytes, rest, next_offset, next_time = match(marks, '^%d+:%d+:(%d+) ((%d+):(%d+):%d+ .*)$')
    if not rest or next_time + age > now and bytes - first_bytes <= most * (1 - 1 / PARTS) then break end
    marks, cut = rest, next_offset
  end
  if is_another then
    -- The channel is new, or this server is not the one that has counted so far, or not whole: it was started again, or was a
    -- replica that took over. What it holds is the truth from here on; where that began, nodes read in the list of epochs.
    -- Each is younger than the one before, whatever the clock says: by their age nodes order what belongs to histories that parted.
    local last = tonumber(match(epochs, '@(%d+) $')) or 0
    local began = last < MOST and math.max(now, last + 1) or now
    epochs = string.sub(epochs .. epoch .. '@' .. (offset - 1) .. '@' .. began .. ' ', -320)
  end
  if is_taken() then return {'', 0, 1, server} end
  -- In this order, since what the stream refuses must not have been counted; but a new channel's stream is nobody's yet.
  local refusal = not is_new and append('MINID', '=', (cut or 0) .. '-0', id, 'f', frame)
  if refusal then return refusal end
  call('HSET', KEYS[1], 'epoch', epoch, 'server', server, 'epochs', epochs, 'offset', offset, 'bytes', counted,
    'part_since', now, 'part_bytes', bytes, 'marks', marks)
  if is_new then
    call('DEL', stream)
    call('XADD', stream, id, 'f', frame)
  end
else
  if is_taken() then return {'', 0, 1, server} end
  local refusal = append('MAXLEN', '~', ARGV[5], id, 'f', frame)
  if refusal then return refusal end
  call('HSET', KEYS[1], 'offset', offset, 'bytes', counted)
end
local heard = call(ARGV[3], ARGV[1], payload) > 0 and '1' or '0'
call('PEXPIRE', stream, age)
if begins or heard ~= meta[7] then
  -- While anybody may remember the offset it must not begin anew. Where nobody listens it goes with the stream.
  if heard ~= meta[7] then call('HSET', KEYS[1], 'heard', heard) end
  call('PEXPIRE', KEYS[1], heard == '1' and ARGV[8] or math.ceil(age * (1 + 1 / PARTS)))
end
if KEYS[3] and not is_end then call('SET', KEYS[3], offset, 'PX', ARGV[9]) end
return {epoch, offset, 0, server}
