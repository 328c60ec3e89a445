#!lua flags=allow-oom
-- Give claimed deliveries back untried (drain), or put ready ones off (their host can take no more now).
-- include _partition
-- KEYS  own of every partition named    ARGV for each: prefix epoch id in_ms
-- Reply for each: {OK} | {GONE} | {FENCED, epoch, node}
local now = now_ms()
local replies = {}

local function release(p, epoch, id, in_ms)
  local fence = fenced(p, epoch)
  if fence then return fence end
  local at, record = now + tonumber(in_ms), p .. 'd:' .. id
  if redis.call('ZREM', p .. 'busy', id) == 1 then
    local failures = tonumber(redis.call('HGET', record, 'f'))
    redis.call('HSET', record, 'st', failures > 0 and 'retrying' or 'pending')
    redis.call('HINCRBY', record, 'x', -1)
  elseif not redis.call('ZSCORE', p .. 'ready', id) then
    return {'GONE'}
  end
  redis.call('HSET', record, 'nx', at)
  redis.call('ZADD', p .. 'ready', at, id)
  return {'OK'}
end

for i = 1, #ARGV, 4 do replies[#replies + 1] = release(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]) end
return replies
