#!lua flags=allow-oom
-- Drop an open batch with all it holds. The caller's epoch must be the stored one.
-- include _partition
-- KEYS own    ARGV prefix epoch kid
-- Reply {OK, dropped} | {NONE} | {FENCED, epoch, node}
local p, kid = ARGV[1], ARGV[3]
local fence = fenced(p, ARGV[2])
if fence then return fence end
local n = redis.call('HGET', p .. 'm:' .. kid, 'n')
if not n then return {'NONE'} end
redis.call('UNLINK', p .. 'm:' .. kid, p .. 'b:' .. kid)
redis.call('ZREM', p .. 'open', kid)
return {'OK', tonumber(n)}
