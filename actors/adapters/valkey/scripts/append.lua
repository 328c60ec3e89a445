#!lua
-- Take messages into the open batches of their keys; a batch that is full closes here, so it is never overfilled.
-- Commutative and deduplicated: any node may call it, no epoch. Without allow-oom: refused whole when memory is full.
-- include _partition
-- include _append
-- KEYS  own of every partition named    ARGV[1] dedupe window ms, then for each message
--   terms message_id dedupe payload trace batch_id; terms in MessagePack:
--   {prefix, kid, key, policy, host, wait_ms, max_wait_ms, max_size, max_bytes}
-- Reply, flat, for each message: size, bytes, remaining ms, deadline ms, code (0 open, 1 duplicate, 2 closed by size, 3 by bytes;
--   +4 when the closed batch is first in its key's line); at the end the time at which all this was, in µs
local window = tonumber(ARGV[1])
local now_us = clock_us()
local now = math.floor(now_us / 1000)
local bucket = math.floor(now / window)
local expiring, reply = {}, {}

local function answer(n, b, deadline, code)
  local at = #reply
  reply[at + 1], reply[at + 2], reply[at + 3], reply[at + 4], reply[at + 5] =
    n, b, code < 2 and n > 0 and math.max(deadline - now, 0) or 0, deadline, code
end

for i = 2, #ARGV, 6 do
  local p, kid, key, policy, host, wait, max_wait, max_size, max_bytes = unpack(cmsgpack.unpack(ARGV[i]))
  local message_id, dedupe, payload, trace, batch_id =
    ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5]
  local open, recent = p .. 'm:' .. kid, p .. 'i:' .. bucket
  local m = redis.call('HMGET', open, 'n', 'b', 'f', 'd')
  local n, b, first, deadline = tonumber(m[1] or 0), tonumber(m[2] or 0), tonumber(m[3] or now), tonumber(m[4] or 0)
  local seen = redis.call('SISMEMBER', p .. 'i:' .. (bucket - 1), dedupe) == 1
    or (now - first > window and holds(p .. 'b:' .. kid, message_id))
    or redis.call('SADD', recent, dedupe) == 0
  if seen then
    answer(n, b, deadline, 1)
  else
    if not expiring[recent] then
      expiring[recent] = true
      redis.call('PEXPIRE', recent, 2 * window)
    end
    redis.call('RPUSH', p .. 'b:' .. kid, message_id, now_us, payload)
    n, b = n + 1, b + #payload
    if max_wait > 0 then
      deadline = math.min(now + wait, first + max_wait)
    elseif n == 1 then
      deadline = now + wait
    end
    local code = n >= max_size and 2 or b >= max_bytes and 3 or 0
    if code == 0 then
      redis.call('HSET', open, 'k', key, 'n', n, 'b', b, 'f', first, 'd', deadline, 'p', policy, 'h', host, 't', trace)
      if tonumber(m[4] or 0) ~= deadline then redis.call('ZADD', p .. 'open', deadline, kid) end
    elseif freeze(p, kid, batch_id, code == 2 and 'size' or 'bytes', now,
        {key = key, n = n, policy = policy, host = host, trace = trace}) then
      code = code + 4
    end
    answer(n, b, deadline, code)
  end
end
reply[#reply + 1] = now_us
return reply
