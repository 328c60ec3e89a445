#!lua flags=allow-oom
-- Give claimed deliveries back untried (drain), or put ready ones off (their host can take no more now).
-- include _partition
-- KEYS  own of every partition named    ARGV for each: prefix epoch id in_ms untried 0|1
-- `untried`: nothing of the attempt left this node, so that a task need not count it.
-- Reply for each: {OK} | {GONE} | {FENCED, epoch, node}
local now = now_ms()
local replies = {}

local function release(p, epoch, id, in_ms, untried)
  local fence = fenced(p, epoch)
  if fence then return fence end
  local at, record = now + tonumber(in_ms), p .. 'd:' .. id
  if redis.call('ZREM', p .. 'busy', id) == 1 then
    local failures = tonumber(redis.call('HGET', record, 'f'))
    set_status(p, id, failures > 0 and 'retrying' or 'pending', now)
    redis.call('HINCRBY', record, 'x', -1)
    if untried == '1' and is_task(id) then redis.call('HDEL', record, 'l' .. redis.call('HINCRBY', record, 'a', -1) + 1) end
  elseif not redis.call('ZSCORE', p .. 'ready', id) then
    return {'GONE'}
  end
  redis.call('HSET', record, 'nx', at)
  redis.call('ZADD', p .. 'ready', at, id)
  return {'OK'}
end

for i = 1, #ARGV, 5 do
  replies[#replies + 1] = release(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4])
end
return replies
