#!lua flags=allow-oom
-- Give a delivery up for good: it leaves its key's line, its messages are dropped, its record is kept a while. A task
-- only before it was ever tried, or while nothing of it is known to have failed: pending.
-- include _partition
-- KEYS own    ARGV prefix epoch id, then how long records are kept
-- Reply {OK, next id of the key, its host} | {STATE, status} | {GONE} | {FENCED, epoch, node}
local p, id = ARGV[1], ARGV[3]
local fence = fenced(p, ARGV[2])
if fence then return fence end
local record = p .. 'd:' .. id
local d = redis.call('HMGET', record, 'st', 'kid')
if not d[1] then return {'GONE'} end
local free = d[1] == 'pending' or (not is_task(id) and (d[1] == 'retrying' or d[1] == 'dead'))
if not free then return {'STATE', d[1]} end
local now = now_ms()
set_status(p, id, 'discarded', now)
redis.call('HDEL', record, 'nx')
redis.call('ZREM', p .. 'ready', id)
redis.call('ZREM', p .. 'dead', id)
file_away(p, id, is_task(id) and 'gone' or 'done', now, kept_from(4))
return {'OK', leave_line(p, d[2], id, now)}
