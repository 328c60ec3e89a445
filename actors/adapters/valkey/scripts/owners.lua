#!lua flags=no-writes
-- Who owns what.
-- KEYS  own of every partition asked for
-- Reply for each key: epoch, node (flat)
local reply = {}
for _, key in ipairs(KEYS) do
  local own = redis.call('HMGET', key, 'ep', 'node')
  reply[#reply + 1] = own[1] or '0'
  reply[#reply + 1] = own[2] or ''
end
return reply
