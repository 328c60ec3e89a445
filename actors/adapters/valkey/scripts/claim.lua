#!lua flags=allow-oom
-- Take deliveries for one attempt each. The attempt counts from here, before the work, so that a batch which kills
-- its node is still counted; after `crashes_max` claims that nobody settled it is dead.
-- include _partition
-- KEYS  own of every partition named    ARGV[1] crashes_max, ARGV[2] dead ttl ms, then for each: prefix epoch id
-- Reply for each: {OK, attempt, failures, key, reason, policy, trace, created ms, {id, received ms, payload, ...}}
--   | {GONE} | {POISON, next id, next host} | {FENCED, epoch, node}
-- How far the caller's clock may run ahead: a timer of its own must not miss its delivery by a millisecond.
local EARLY_MS = 50
local now = now_ms()
local replies = {}

local function claim(p, epoch, id)
  local fence = fenced(p, epoch)
  if fence then return fence end
  local ready_at = redis.call('ZSCORE', p .. 'ready', id)
  if not ready_at or tonumber(ready_at) > now + EARLY_MS then return {'GONE'} end
  redis.call('ZREM', p .. 'ready', id)
  local d = redis.call('HMGET', p .. 'd:' .. id, 'a', 'f', 'k', 'r', 'p', 't', 'c', 'x', 'kid')
  if not d[1] then return {'GONE'} end
  if tonumber(d[8]) - tonumber(d[2]) >= tonumber(ARGV[1]) then
    local following, host = bury(p, d[9], id, now, tonumber(ARGV[2]))
    return {'POISON', following, host}
  end
  local attempt = tonumber(d[1]) + 1
  redis.call('HSET', p .. 'd:' .. id, 'st', 'delivering', 'a', attempt, 'x', tonumber(d[8]) + 1, 'l' .. attempt, now)
  redis.call('ZADD', p .. 'busy', now, id)
  return {'OK', attempt, tonumber(d[2]), d[3], d[4], d[5], d[6], tonumber(d[7]), redis.call('LRANGE', p .. 'o:' .. id, 0, -1)}
end

for i = 3, #ARGV, 3 do replies[#replies + 1] = claim(ARGV[i], ARGV[i + 1], ARGV[i + 2]) end
return replies
