#!lua flags=allow-oom
-- Become the owner of partitions by compare-and-set of their epochs, and take over what the last owner had in hand.
-- include _partition
-- include _ownership
-- KEYS  own of every partition named    ARGV[1] node, ARGV[2] highest epoch seen, then for each: prefix expected epoch
-- Reply for each: {OK, epoch, deliveries taken over} | {LOST, epoch, node}
local now = now_ms()
local replies = {}

local function acquire(p, expected)
  local own = redis.call('HMGET', p .. 'own', 'ep', 'node')
  local stored = own[1] or '0'
  if stored ~= expected then return {'LOST', stored, own[2] or ''} end
  local epoch = next_epoch(stored, ARGV[2])
  redis.call('HSET', p .. 'own', 'ep', epoch, 'node', ARGV[1])
  return {'OK', epoch, put_back(p, epoch, now)}
end

for i = 3, #ARGV, 2 do replies[#replies + 1] = acquire(ARGV[i], ARGV[i + 1]) end
return replies
