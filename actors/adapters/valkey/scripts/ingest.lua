#!lua
-- Give offsets to what other Redis clients published, once, however many nodes heard it and ask.
-- Without allow-oom: refused whole when memory is full.
-- include _channel
-- KEYS  own of every partition named    ARGV[1..4] as _channel says, ARGV[5] ms for which marks are remembered, then for
--   each question: prefix kid mark number n, then n times id data
-- Reply {1, ...} for each question
-- Side channel: f|epoch|offset|mark|number|id|data
local mark_ms = ARGV[5]
local reply, i = {}, 6
while i <= #ARGV do
  local p, kid, mark, number, n = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4])
  local counted = p .. 'f:' .. kid .. ':' .. mark
  local done = tonumber(redis.call('GET', counted) or 0)
  local last = number + n - 1
  for which = math.max(number, done + 1), last do
    local at = i + 5 + 2 * (which - number)
    local id, data = ARGV[at], ARGV[at + 1]
    local head = head_of(p, kid)
    local offset = append(head, id, data)
    redis.call('PUBLISH', head.side, table.concat({'f', head.e, offset, mark, which, id, data}, '|'))
  end
  if last > done then redis.call('SET', counted, last, 'PX', mark_ms) end
  reply[#reply + 1] = 1
  i = i + 5 + 2 * n
end
return reply
