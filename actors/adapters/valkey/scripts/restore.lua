#!lua flags=allow-oom
-- Take back messages that were acknowledged before the store lost them, each where it belongs by the time at which it
-- was first received: other nodes do the same, one after the other. No batch closes here; see reclose.
-- include _partition
-- include _append
-- KEYS  own of every partition named    ARGV[1] dedupe window ms, then for each message
--   prefix kid message_id dedupe payload wait_ms max_wait_ms key policy host trace received_us (0: now)
-- Reply for each message: 1 added, 0 known already
local window = tonumber(ARGV[1])
local now_us = clock_us()
local now = math.floor(now_us / 1000)
local bucket = math.floor(now / window)
local replies = {}

-- Gives whether the message is the batch's first, and whether it is its last.
local function insert(batch, id, at, payload)
  local before = redis.call('LLEN', batch)
  while before > 0 and tonumber(redis.call('LINDEX', batch, before - 2)) > at do before = before - 3 end
  local later = redis.call('LRANGE', batch, before, -1)
  if before == 0 then redis.call('UNLINK', batch) else redis.call('LTRIM', batch, 0, before - 1) end
  redis.call('RPUSH', batch, id, at, payload)
  push_all(batch, later, 1)
  return before == 0, #later == 0
end

for i = 2, #ARGV, 12 do
  local p, kid, dedupe, payload = ARGV[i], ARGV[i + 1], ARGV[i + 3], ARGV[i + 4]
  local wait, max_wait, at_us = tonumber(ARGV[i + 5]), tonumber(ARGV[i + 6]), tonumber(ARGV[i + 11])
  if at_us == 0 then at_us = now_us end
  local at = math.floor(at_us / 1000)
  local open, batch, recent = p .. 'm:' .. kid, p .. 'b:' .. kid, p .. 'i:' .. bucket
  local m = redis.call('HMGET', open, 'n', 'b', 'f', 'd')
  local n, b, first, deadline = tonumber(m[1] or 0), tonumber(m[2] or 0), tonumber(m[3] or at), tonumber(m[4] or 0)
  local seen = redis.call('SISMEMBER', p .. 'i:' .. (bucket - 1), dedupe) == 1
    or (now - first > window and holds(batch, ARGV[i + 2]))
    or redis.call('SADD', recent, dedupe) == 0
  if not seen then
    redis.call('PEXPIRE', recent, 2 * window)
    local is_first, is_last = insert(batch, ARGV[i + 2], at_us, payload)
    if is_first then first = at end
    if max_wait > 0 then
      deadline = math.min(math.max(deadline, at + wait), first + max_wait)
    elseif is_first then
      deadline = at + wait
    end
    redis.call('HSET', open, 'k', ARGV[i + 7], 'n', n + 1, 'b', b + #payload, 'f', first, 'd', deadline)
    -- The newest message says where its batch goes.
    if is_last then redis.call('HSET', open, 'p', ARGV[i + 8], 'h', ARGV[i + 9], 't', ARGV[i + 10]) end
    redis.call('ZADD', p .. 'open', deadline, kid)
  end
  replies[#replies + 1] = seen and 0 or 1
end
return replies
