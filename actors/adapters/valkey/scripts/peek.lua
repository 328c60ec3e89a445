#!lua flags=no-writes
-- Look at the open batch of one key.
-- include _partition
-- KEYS own    ARGV prefix kid
-- Reply {NONE} | {OK, n, bytes, remaining ms, {id, received ms, payload, ...}}
local p, kid = ARGV[1], ARGV[2]
local m = redis.call('HMGET', p .. 'm:' .. kid, 'n', 'b', 'd')
if not m[1] then return {'NONE'} end
return {'OK', tonumber(m[1]), tonumber(m[2]), math.max(tonumber(m[3]) - now_ms(), 0),
  redis.call('LRANGE', p .. 'b:' .. kid, 0, -1)}
