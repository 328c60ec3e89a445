#!lua flags=allow-oom
-- Close open batches that were filled by messages that came back: as many from the front as one batch may hold, in
-- order; what is left stays open. No epoch: it is what the appends would have done.
-- include _partition
-- include _append
-- KEYS  own of every partition named    ARGV for each batch that may close:
--   prefix kid wait_ms max_wait_ms max_size max_bytes batch_id
-- Reply {batches closed}
local now = now_ms()

-- How many messages from the front fill one batch, and their bytes; nothing when all of them do not.
local function full(messages, max_size, max_bytes)
  local bytes = 0
  for count = 1, #messages / 3 do
    bytes = bytes + #messages[3 * count]
    if count >= max_size or bytes >= max_bytes then return count, bytes end
  end
end

local function close(p, kid, wait, max_wait, max_size, max_bytes, id)
  local m = redis.call('HMGET', p .. 'm:' .. kid, 'n', 'b', 'k', 'p', 'h', 't', 'd')
  if not m[1] or (tonumber(m[1]) < max_size and tonumber(m[2]) < max_bytes) then return 0 end
  if redis.call('EXISTS', p .. 'd:' .. id) == 1 then return 0 end
  local batch = p .. 'b:' .. kid
  local messages = redis.call('LRANGE', batch, 0, -1)
  local count, bytes = full(messages, max_size, max_bytes)
  if not count then return 0 end
  redis.call('LTRIM', batch, 0, 3 * count - 1)
  freeze(p, kid, id, count >= max_size and 'size' or 'bytes', now, {key = m[3], n = count, policy = m[4], host = m[5], trace = m[6]})
  if 3 * count < #messages then
    local first = math.floor(tonumber(messages[3 * count + 2]) / 1000)
    local deadline = max_wait > 0 and tonumber(m[7]) or first + wait
    push_all(batch, messages, 3 * count + 1)
    redis.call('HSET', p .. 'm:' .. kid, 'k', m[3], 'n', m[1] - count, 'b', m[2] - bytes, 'f', first, 'd', deadline,
      'p', m[4], 'h', m[5], 't', m[6])
    redis.call('ZADD', p .. 'open', deadline, kid)
  end
  return 1
end

local closed = 0
for i = 1, #ARGV, 7 do
  closed = closed + close(ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4]),
    tonumber(ARGV[i + 5]), ARGV[i + 6])
end
return {closed}
