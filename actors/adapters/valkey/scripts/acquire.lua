#!lua flags=allow-oom
-- Become the owner of partitions by compare-and-set of their epochs, and take over what the last owner had in hand.
-- The new epoch is above the stored one, the highest the caller has seen, and Redis' time in microseconds: it cannot
-- repeat even when the store comes back with an older state.
-- include _partition
-- KEYS  own of every partition named    ARGV[1] node, ARGV[2] highest epoch seen, then for each: prefix expected epoch
-- Reply for each: {OK, epoch, deliveries taken over} | {LOST, epoch, node}
local SPREAD_MS = 2000
local t = redis.call('TIME')
local now = now_ms()
local replies = {}

local function acquire(p, expected)
  local own = redis.call('HMGET', p .. 'own', 'ep', 'node')
  local stored = own[1] or '0'
  if stored ~= expected then return {'LOST', stored, own[2] or ''} end
  local epoch = string.format('%.0f', math.max(tonumber(stored) + 1, t[1] * 1000000 + t[2], tonumber(ARGV[2]) + 1))
  redis.call('HSET', p .. 'own', 'ep', epoch, 'node', ARGV[1])
  local busy = redis.call('ZRANGE', p .. 'busy', 0, -1)
  for _, id in ipairs(busy) do
    redis.call('ZREM', p .. 'busy', id)
    local counted = redis.call('HMGET', p .. 'd:' .. id, 'f', 'x')
    if counted[1] then
      -- Attempts that were cut off more than once may be what stopped their nodes: they come back apart from each
      -- other, or one poison batch would take its neighbours along until they are all taken for poison.
      local failures, cut_off = tonumber(counted[1]), tonumber(counted[2]) - tonumber(counted[1])
      local place = tonumber(string.sub(redis.sha1hex(id .. epoch), 1, 4), 16) / 65536
      redis.call('HSET', p .. 'd:' .. id, 'st', failures > 0 and 'retrying' or 'pending')
      redis.call('ZADD', p .. 'ready', now + math.floor((cut_off - 1) * SPREAD_MS * place), id)
    end
  end
  return {'OK', epoch, #busy}
end

for i = 3, #ARGV, 2 do replies[#replies + 1] = acquire(ARGV[i], ARGV[i + 1]) end
return replies
