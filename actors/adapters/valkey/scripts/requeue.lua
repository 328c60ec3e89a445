#!lua flags=allow-oom
-- Try a delivery again because somebody asked: a dead one joins the end of its key's line with a fresh budget of
-- retries, one that waits for its next attempt becomes due now.
-- include _partition
-- KEYS own    ARGV prefix epoch id
-- Reply {OK, startable 0|1, host} | {STATE, status} | {GONE} | {FENCED, epoch, node}
local p, id = ARGV[1], ARGV[3]
local fence = fenced(p, ARGV[2])
if fence then return fence end
local record = p .. 'd:' .. id
local d = redis.call('HMGET', record, 'st', 'kid', 'h', 'c')
if not d[1] then return {'GONE'} end
local now = now_ms()
if d[1] == 'dead' then
  if redis.call('EXISTS', p .. 'o:' .. id) == 0 then return {'GONE'} end
  redis.call('PERSIST', record)
  redis.call('PERSIST', p .. 'o:' .. id)
  redis.call('ZREM', list_of(p, id, 'dead'), id)
  redis.call('ZADD', list_of(p, id, 'live'), tonumber(d[4]), id)
  set_status(p, id, 'pending', now)
  redis.call('HSET', record, 'x', 0, 'f', 0)
  if is_task(id) then redis.call('HSET', record, 'rq', redis.call('HGET', record, 'a')) end
  redis.call('HDEL', record, 'res', 'eta')
  local first = redis.call('RPUSH', p .. 'q:' .. d[2], id) == 1
  if first then redis.call('ZADD', p .. 'ready', now, id) end
  return {'OK', first and 1 or 0, d[3]}
end
if d[1] ~= 'retrying' and d[1] ~= 'pending' then return {'STATE', d[1]} end
if not redis.call('ZSCORE', p .. 'ready', id) then return {'OK', 0, d[3]} end
redis.call('ZADD', p .. 'ready', now, id)
redis.call('HSET', record, 'nx', now)
return {'OK', 1, d[3]}
