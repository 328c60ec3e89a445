#!lua flags=allow-oom
-- How far a WhatsApp message has come, forward only. Commutative: any node may call it, no epoch. What comes before its task
-- is settled waits for it.
-- include _partition
-- KEYS own    ARGV prefix mark receipt early_ms
-- Reply {task id ('' not known yet), 1 when it is news}
local RANK = {error = 1, server_ack = 2, delivered = 3, read = 4}
local p, receipt = ARGV[1], ARGV[3]
local sent = p .. 'k:' .. ARGV[2]
local known = redis.call('HMGET', sent, 't', 'dv')
local task = known[1] or ''
if (RANK[known[2] or ''] or 0) >= RANK[receipt] then return {task, 0} end
redis.call('HSET', sent, 'dv', receipt)
local record = p .. 'd:' .. task
if task == '' then
  if redis.call('PTTL', sent) < 0 then redis.call('PEXPIRE', sent, tonumber(ARGV[4])) end
elseif redis.call('EXISTS', record) == 1 then
  redis.call('HSET', record, 'dv', receipt)
end
return {task, 1}
