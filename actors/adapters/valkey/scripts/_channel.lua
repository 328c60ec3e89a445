-- What the scripts share that write streams. Their first ARGV are the same:
--   1 some letters that are new in each call, 2 messages a stream keeps, 3 for how many ms, 4 for how many ms its head stays
local seed, size, history_ms, head_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local heads, begun = {}, 0

-- When an epoch began, in µs: epochs sort by it, so that a store which came back older can be told from a newer one.
local function begun_at(epoch)
  return epoch and tonumber(string.sub(epoch, 1, 16)) or 0
end

-- Begin an epoch, later than the one before and than `known`: nothing of the one before is to be read any more, and
-- offsets start again.
local function begin(head, known)
  local t = redis.call('TIME')
  local at = math.max(t[1] * 1000000 + t[2], begun_at(head.e) + 1, begun_at(known) + 1)
  begun = begun + 1
  head.e, head.s, head.kept = string.format('%016.0f', at) .. seed .. begun, 0, false
  redis.call('UNLINK', head.h)
  redis.call('HSET', head.c, 'e', head.e, 's', 0)
  redis.call('PEXPIRE', head.c, head_ms)
end

-- The head of a stream, which has an epoch now. Looked at once a call.
local function head_of(p, kid)
  local c = p .. 'c:' .. kid
  local head = heads[c]
  if not head then
    local found = redis.call('HMGET', c, 'e', 's')
    head = {c = c, h = p .. 'h:' .. kid, side = p .. 'ch:' .. kid, e = found[1], s = tonumber(found[2] or 0)}
    heads[c] = head
    if not head.e then begin(head) end
  end
  return head
end

-- Put a message into a stream; gives its offset.
local function append(head, id, data)
  local offset = head.s + 1
  redis.call('XADD', head.h, 'MAXLEN', '=', size, offset .. '-0', 'i', id, 'd', data)
  redis.call('HSET', head.c, 's', offset)
  head.s = offset
  if not head.kept then
    head.kept = true
    redis.call('PEXPIRE', head.h, history_ms)
    redis.call('PEXPIRE', head.c, head_ms)
  end
  return offset
end
