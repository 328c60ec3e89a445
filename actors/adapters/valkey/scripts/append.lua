#!lua
-- Take messages into the open batches of their keys; a batch that is full closes here, so it is never overfilled.
-- Commutative and deduplicated: any node may call it, no epoch. Without allow-oom: refused whole when memory is full.
-- include _partition
-- include _append
-- KEYS  own of every partition named    ARGV[1] dedupe window ms, then for each message
--   prefix kid message_id dedupe payload wait_ms max_wait_ms max_size max_bytes key policy host trace batch_id
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

for i = 2, #ARGV, 14 do
  local p, kid, dedupe = ARGV[i], ARGV[i + 1], ARGV[i + 3]
  local wait, max_wait = tonumber(ARGV[i + 5]), tonumber(ARGV[i + 6])
  local open, recent = p .. 'm:' .. kid, p .. 'i:' .. bucket
  local m = redis.call('HMGET', open, 'n', 'b', 'f', 'd')
  local n, b, first, deadline = tonumber(m[1] or 0), tonumber(m[2] or 0), tonumber(m[3] or now), tonumber(m[4] or 0)
  local seen = redis.call('SISMEMBER', p .. 'i:' .. (bucket - 1), dedupe) == 1
    or (now - first > window and holds(p .. 'b:' .. kid, ARGV[i + 2]))
    or redis.call('SADD', recent, dedupe) == 0
  if seen then
    answer(n, b, deadline, 1)
  else
    if not expiring[recent] then
      expiring[recent] = true
      redis.call('PEXPIRE', recent, 2 * window)
    end
    local payload = ARGV[i + 4]
    redis.call('RPUSH', p .. 'b:' .. kid, ARGV[i + 2], now_us, payload)
    n, b = n + 1, b + #payload
    if max_wait > 0 then
      deadline = math.min(now + wait, first + max_wait)
    elseif n == 1 then
      deadline = now + wait
    end
    local code = n >= tonumber(ARGV[i + 7]) and 2 or b >= tonumber(ARGV[i + 8]) and 3 or 0
    if code == 0 then
      redis.call('HSET', open, 'k', ARGV[i + 9], 'n', n, 'b', b, 'f', first, 'd', deadline,
        'p', ARGV[i + 10], 'h', ARGV[i + 11], 't', ARGV[i + 12])
      if tonumber(m[4] or 0) ~= deadline then redis.call('ZADD', p .. 'open', deadline, kid) end
    elseif freeze(p, kid, ARGV[i + 13], code == 2 and 'size' or 'bytes', now,
        {key = ARGV[i + 9], n = n, policy = ARGV[i + 10], host = ARGV[i + 11], trace = ARGV[i + 12]}) then
      code = code + 4
    end
    answer(n, b, deadline, code)
  end
end
reply[#reply + 1] = now_us
return reply
