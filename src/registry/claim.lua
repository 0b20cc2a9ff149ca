-- Makes one survivor the reaper of a node whose lease has ended; the mark also fences the node, should it come back.
-- KEYS: lease, reaped. ARGV: the survivor's tag, milliseconds after which another may go on if the survivor dies too.
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
return 0
