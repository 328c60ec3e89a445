#!lua
-- Put messages into their streams, and tell everybody who listens: nodes by the side channel, which is followed by the
-- plain message for them and for every other Redis client. Without allow-oom: refused whole when memory is full.
-- include _channel
-- KEYS  own of every partition named    ARGV[1..4] as _channel says, ARGV[5] ms for which ids are remembered,
--   ARGV[6] number of other nodes, their incarnations, then for each message
--   prefix kid name once id data; once: '' or what stands for the id
-- Reply, flat, for each message: epoch, offset, people on other nodes, other clients, 1 when it had been published before
-- Side channel: p|epoch|offset|bytes of data|id
local once_ms, nodes = ARGV[5], tonumber(ARGV[6])
local reply = {}

local function answer(epoch, offset, elsewhere, foreign, again)
  local at = #reply
  reply[at + 1], reply[at + 2], reply[at + 3], reply[at + 4], reply[at + 5] = epoch, offset, elsewhere, foreign, again
end

local function people(p, kid)
  local sum = 0
  for i = 7, 6 + nodes do sum = sum + tonumber(redis.call('HGET', p .. 'w:' .. ARGV[i], kid) or 0) end
  return sum
end

for i = 7 + nodes, #ARGV, 6 do
  local p, kid, name, once, id, data = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5]
  local before = once ~= '' and redis.call('GET', p .. 'p:' .. once)
  if before then
    local epoch, offset = string.match(before, '^(%S+) (%d+)$')
    answer(epoch, tonumber(offset), 0, 0, 1)
  else
    local head = head_of(p, kid)
    local offset = append(head, id, data)
    if once ~= '' then redis.call('SET', p .. 'p:' .. once, head.e .. ' ' .. offset, 'PX', once_ms) end
    local ears = redis.call('PUBLISH', head.side, 'p|' .. head.e .. '|' .. offset .. '|' .. #data .. '|' .. id)
    local listeners = redis.call('PUBLISH', name, data)
    answer(head.e, offset, ears > 0 and people(p, kid) or 0, math.max(listeners - ears, 0), 0)
  end
end
return reply
