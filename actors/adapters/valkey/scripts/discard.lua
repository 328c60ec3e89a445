#!lua flags=allow-oom
-- Give a delivery up for good: it leaves its key's line, its messages are dropped, its record is kept a while.
-- include _partition
-- KEYS own    ARGV prefix epoch id kept_ms kept_at_most
-- Reply {OK, next id of the key, its host} | {STATE, status} | {GONE} | {FENCED, epoch, node}
local p, id = ARGV[1], ARGV[3]
local fence = fenced(p, ARGV[2])
if fence then return fence end
local record = p .. 'd:' .. id
local d = redis.call('HMGET', record, 'st', 'kid')
if not d[1] then return {'GONE'} end
if d[1] ~= 'pending' and d[1] ~= 'retrying' and d[1] ~= 'dead' then return {'STATE', d[1]} end
local now = now_ms()
redis.call('HSET', record, 'st', 'discarded')
redis.call('HDEL', record, 'nx')
redis.call('ZREM', p .. 'ready', id)
redis.call('ZREM', p .. 'dead', id)
file_away(p, id, 'done', now, tonumber(ARGV[4]), tonumber(ARGV[5]))
return {'OK', leave_line(p, d[2], id, now)}
