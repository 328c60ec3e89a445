#!lua flags=allow-oom
-- Freeze open batches whose time has come, or on demand. The caller's epoch must be the stored one.
-- include _partition
-- KEYS  own of every partition named    ARGV for each: prefix epoch kid deadline_ms|'' reason batch_id
-- Reply for each: {OK, size, host, first 0|1} | {LATER, remaining ms, deadline ms} | {NONE} | {FENCED, epoch, node}
local now = now_ms()
local replies = {}

local function close(p, epoch, kid, believed, reason, id)
  local fence = fenced(p, epoch)
  if fence then return fence end
  local known = redis.call('HMGET', p .. 'd:' .. id, 'n', 'h')
  if known[1] then return {'OK', tonumber(known[1]), known[2], redis.call('LINDEX', p .. 'q:' .. kid, 0) == id and 1 or 0} end
  local m = redis.call('HMGET', p .. 'm:' .. kid, 'k', 'n', 'd', 'p', 'h', 't')
  if not m[1] then
    redis.call('ZREM', p .. 'open', kid)
    return {'NONE'}
  end
  local deadline = tonumber(m[3])
  if believed ~= '' and deadline > tonumber(believed) then return {'LATER', math.max(deadline - now, 0), deadline} end
  local first = freeze(p, kid, id, reason, now, {key = m[1], n = m[2], policy = m[4], host = m[5], trace = m[6]})
  return {'OK', tonumber(m[2]), m[5], first and 1 or 0}
end

for i = 1, #ARGV, 6 do
  replies[#replies + 1] = close(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5])
end
return replies
