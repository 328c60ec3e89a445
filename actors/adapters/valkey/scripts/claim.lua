#!lua flags=allow-oom
-- Take deliveries for one attempt each. The attempt counts from here, before the work, so that a batch which kills
-- its node is still counted; after `crashes_max` claims that nobody settled it is dead.
-- include _partition
-- KEYS  own of every partition named    ARGV[1] crashes_max, ARGV[2-5] how long records are kept, then for each: prefix epoch id
-- Reply for each: {OK, attempt, failures, key, reason, policy, trace, created ms, {id, received ms, payload, ...},
--     1 when a task's last attempt was cut off}
--   | {GONE} | {POISON, next id, next host} | {FENCED, epoch, node}
-- How far the caller's clock may run ahead: a timer of its own must not miss its delivery by a millisecond.
local EARLY_MS = 50
local now = now_ms()
local kept = kept_from(2)
local replies = {}

local function claim(p, epoch, id)
  local fence = fenced(p, epoch)
  if fence then return fence end
  local ready_at = redis.call('ZSCORE', p .. 'ready', id)
  if not ready_at or tonumber(ready_at) > now + EARLY_MS then return {'GONE'} end
  redis.call('ZREM', p .. 'ready', id)
  local d = redis.call('HMGET', p .. 'd:' .. id, 'a', 'f', 'k', 'r', 'p', 't', 'c', 'x', 'kid', 'w', 'rq')
  if not d[1] then return {'GONE'} end
  if d[10] then
    -- Its time has come: it joins its line, and waits there if somebody is before it.
    redis.call('HDEL', p .. 'd:' .. id, 'w')
    if redis.call('RPUSH', p .. 'q:' .. d[9], id) > 1 then return {'GONE'} end
  end
  if tonumber(d[8]) - tonumber(d[2]) >= tonumber(ARGV[1]) then
    local following, host = bury(p, d[9], id, now, kept)
    return {'POISON', following, host}
  end
  local attempt = tonumber(d[1]) + 1
  local cut_off = is_task(id) and attempt > tonumber(d[11] or 0) + 1 and string.find(redis.call('HGET', p .. 'd:' .. id, 'l' .. d[1]) or '', '^%d')
  redis.call('HSET', p .. 'd:' .. id, 'a', attempt, 'x', tonumber(d[8]) + 1, 'l' .. attempt, now)
  set_status(p, id, 'delivering', now)
  redis.call('ZADD', p .. 'busy', now, id)
  return {'OK', attempt, tonumber(d[2]), d[3], d[4], d[5], d[6], tonumber(d[7]), redis.call('LRANGE', p .. 'o:' .. id, 0, -1),
    cut_off and 1 or 0}
end

for i = 6, #ARGV, 3 do replies[#replies + 1] = claim(ARGV[i], ARGV[i + 1], ARGV[i + 2]) end
return replies
