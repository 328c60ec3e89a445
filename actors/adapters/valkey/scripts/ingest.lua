#!lua
-- Give offsets to what other Redis clients published, once, however many nodes heard it and ask.
-- Without allow-oom: refused whole when memory is full.
-- include _channel
-- KEYS  own of every partition named    ARGV[1..4] as _channel says, ARGV[5] ms for which marks are remembered, then for
--   each question: prefix kid, mark number of the last one given up ('' 0: none), mark number n, then n times id data
-- What was given up and has no offset is a hole that nobody will fill: a new epoch says so to everybody.
-- Reply {1, ...} for each question
-- Side channel: f|epoch|offset|mark|number|id|data
local mark_ms = ARGV[5]
local reply, i = {}, 6
while i <= #ARGV do
  local p, kid, gone_mark, gone = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3])
  local mark, number, n = ARGV[i + 4], tonumber(ARGV[i + 5]), tonumber(ARGV[i + 6])
  if gone > tonumber(redis.call('GET', p .. 'f:' .. kid .. ':' .. gone_mark) or 0) then
    local head = head_of(p, kid)
    begin(head, head.e)
    redis.call('SET', p .. 'f:' .. kid .. ':' .. gone_mark, gone, 'PX', mark_ms)
  end
  local counted = p .. 'f:' .. kid .. ':' .. mark
  local done = tonumber(redis.call('GET', counted) or 0)
  local last = number + n - 1
  for which = math.max(number, done + 1), last do
    local at = i + 7 + 2 * (which - number)
    local id, data = ARGV[at], ARGV[at + 1]
    local head = head_of(p, kid)
    local offset = append(head, id, data)
    redis.call('PUBLISH', head.side, table.concat({'f', head.e, offset, mark, which, id, data}, '|'))
  end
  if last > done then redis.call('SET', counted, last, 'PX', mark_ms) end
  reply[#reply + 1] = 1
  i = i + 7 + 2 * n
end
return reply
