#!lua flags=allow-oom
-- Write how an attempt ended: the one place where a delivery's outcome is recorded. Settling twice changes nothing.
-- include _partition
-- KEYS  own of every partition named    ARGV[1-4] how long records are kept, then for each:
--   prefix epoch id attempt status(delivered|retrying|dead|held) log retry_in_ms result('' none) mark('' none)
-- `held` is tried again later and uses up no retry. `mark` names the WhatsApp message that a task became.
-- Reply for each: {OK, next id of the key, its host} | {STALE} | {FENCED, epoch, node}
local now = now_ms()
local kept = kept_from(1)
local LINES_MAX = 50
local replies = {}

-- What only tasks have: a result, a bounded log, and a mark by which receipts find them.
local function note_task(p, id, attempt, result, mark)
  local record = p .. 'd:' .. id
  if result ~= '' then redis.call('HSET', record, 'res', result) end
  redis.call('HDEL', record, 'l' .. (tonumber(attempt) - LINES_MAX))
  if mark == '' then return end
  local sent = p .. 'k:' .. mark
  redis.call('HSET', sent, 't', id)
  redis.call('PEXPIRE', sent, kept.task)
  local receipt = redis.call('HGET', sent, 'dv')
  if receipt then redis.call('HSET', record, 'dv', receipt) end
end

local function settle(p, epoch, id, attempt, status, log, retry_in, result, mark)
  local fence = fenced(p, epoch)
  if fence then return fence end
  local record = p .. 'd:' .. id
  local d = redis.call('HMGET', record, 'st', 'a', 'kid', 'f')
  if d[1] ~= 'delivering' or d[2] ~= attempt then return {'STALE'} end
  redis.call('ZREM', p .. 'busy', id)
  redis.call('HSET', record, 'l' .. attempt, log)
  if is_task(id) then note_task(p, id, attempt, result, mark) end
  if status == 'delivered' then
    set_status(p, id, status, now)
    file_away(p, id, 'done', now, kept)
    return {'OK', leave_line(p, d[3], id, now)}
  end
  if status == 'held' then
    redis.call('HINCRBY', record, 'x', -1)
    status = d[4] ~= '0' and 'retrying' or 'pending'
  else
    redis.call('HINCRBY', record, 'f', 1)
  end
  if status == 'dead' then return {'OK', bury(p, d[3], id, now, kept)} end
  set_status(p, id, status, now)
  redis.call('HSET', record, 'nx', now + tonumber(retry_in))
  redis.call('ZADD', p .. 'ready', now + tonumber(retry_in), id)
  return {'OK', '', ''}
end

for i = 5, #ARGV, 9 do
  replies[#replies + 1] = settle(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6],
    ARGV[i + 7], ARGV[i + 8])
end
return replies
