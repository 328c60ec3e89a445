#!lua flags=no-writes,allow-cross-slot-keys
-- Who owns what.
-- KEYS  own of the first partition named    ARGV prefixes
-- Reply for each: epoch, node (flat)
local reply = {}
for i = 1, #ARGV do
  local own = redis.call('HMGET', ARGV[i] .. 'own', 'ep', 'node')
  reply[#reply + 1] = own[1] or '0'
  reply[#reply + 1] = own[2] or ''
end
return reply
