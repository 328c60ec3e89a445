#!lua flags=allow-oom
-- Read streams, and put a mark into what everybody hears of each at this moment. Begins an epoch where there is none, and
-- where the store does not have what a node knows it had. With allow-oom: whoever was cut off can come back to a full
-- store, too.
-- include _channel
-- include _recall
-- KEYS  own of every partition named    ARGV[1..4] as _channel says, ARGV[5] bytes for all, then for each stream
--   prefix kid epoch offset limit bytes mark last_id; no offset: only where it stands; last_id: '' or that of the
--   message there
-- Reply for each {epoch, top, 1 when bounds cut it short, {offset, id, data, ...}, id of the newest message or ''}
-- Side channel: m|mark
local left = tonumber(ARGV[5])
local reply = {}

-- Whether the store has lost what a node knows: an epoch that began later, or a message under this offset. One that is
-- not there any more proves nothing: it may have been trimmed, or have expired.
local function lost(head, epoch, offset, last_id)
  if epoch ~= head.e then return begun_at(epoch) > begun_at(head.e) end
  if head.s < offset then return true end
  local there = redis.call('XRANGE', head.h, offset .. '-0', offset .. '-0')[1]
  return there and there[2][2] ~= last_id
end

local function newest_id(head)
  local newest = redis.call('XREVRANGE', head.h, '+', '-', 'COUNT', 1)[1]
  return newest and newest[1] == head.s .. '-0' and newest[2][2] or ''
end

for i = 6, #ARGV, 8 do
  local epoch, offset, last_id = ARGV[i + 2], ARGV[i + 3], ARGV[i + 7]
  local head = head_of(ARGV[i], ARGV[i + 1])
  local after = tonumber(offset) or 0
  if last_id ~= '' and after > 0 and lost(head, epoch, after, last_id) then begin(head, epoch) end
  redis.call('PEXPIRE', head.c, head_ms)
  redis.call('PUBLISH', head.side, 'm|' .. ARGV[i + 6])
  local found, bytes, more = {}, 0, 0
  if wants(epoch, offset, head.e) then
    found, bytes, more = read(head.h, after, head.s, tonumber(ARGV[i + 4]), math.min(left, tonumber(ARGV[i + 5])))
    left = left - bytes
  end
  reply[#reply + 1] = {head.e, head.s, more, found, newest_id(head)}
end
return reply
