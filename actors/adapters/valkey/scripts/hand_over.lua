#!lua flags=allow-oom
-- Make another node the owner of partitions (planned move). The caller's epoch must be the stored one; the new owner
-- finds its name there and acquires.
-- include _partition
-- include _ownership
-- KEYS  own of every partition named    ARGV for each: prefix epoch node
-- Reply for each: {OK, epoch, node} | {FENCED, epoch, node}
local now = now_ms()
local replies = {}

local function hand_over(p, held, node)
  local fence = fenced(p, held)
  if fence then return fence end
  local epoch = next_epoch(held, held)
  redis.call('HSET', p .. 'own', 'ep', epoch, 'node', node)
  put_back(p, epoch, now)
  return {'OK', epoch, node}
end

for i = 1, #ARGV, 3 do replies[#replies + 1] = hand_over(ARGV[i], ARGV[i + 1], ARGV[i + 2]) end
return replies
