#!lua flags=allow-oom
-- Write how an attempt ended: the one place where a delivery's outcome is recorded. Settling twice changes nothing.
-- include _partition
-- KEYS  own of every partition named    ARGV[1] delivered ttl ms, ARGV[2] dead ttl ms, ARGV[3] delivered kept at most,
--   then for each: prefix epoch id attempt status(delivered|retrying|dead) log retry_in_ms
-- Reply for each: {OK, next id of the key, its host} | {STALE} | {FENCED, epoch, node}
local now = now_ms()
local replies = {}

local function settle(p, epoch, id, attempt, status, log, retry_in)
  local fence = fenced(p, epoch)
  if fence then return fence end
  local record = p .. 'd:' .. id
  local d = redis.call('HMGET', record, 'st', 'a', 'kid')
  if d[1] ~= 'delivering' or d[2] ~= attempt then return {'STALE'} end
  redis.call('ZREM', p .. 'busy', id)
  redis.call('HSET', record, 'st', status, 'l' .. attempt, log)
  if status == 'delivered' then
    file_away(p, id, 'done', now, tonumber(ARGV[1]), tonumber(ARGV[3]))
    return {'OK', leave_line(p, d[3], id, now)}
  end
  redis.call('HINCRBY', record, 'f', 1)
  if status == 'dead' then return {'OK', bury(p, d[3], id, now, tonumber(ARGV[2]))} end
  redis.call('HSET', record, 'nx', now + tonumber(retry_in))
  redis.call('ZADD', p .. 'ready', now + tonumber(retry_in), id)
  return {'OK', '', ''}
end

for i = 4, #ARGV, 7 do
  replies[#replies + 1] =
    settle(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6])
end
return replies
