#!lua flags=no-writes,allow-cross-slot-keys
-- Who listens to channels, as nodes have said.
-- KEYS  own of the first partition named    ARGV[1] number of nodes, their incarnations, then for each channel: prefix kid
-- Reply, flat, for each channel: people on these nodes, 1 when it is awake
local nodes = tonumber(ARGV[1])
local reply = {}
for i = 2 + nodes, #ARGV, 2 do
  local p, kid, sum = ARGV[i], ARGV[i + 1], 0
  for node = 2, 1 + nodes do sum = sum + tonumber(redis.call('HGET', p .. 'w:' .. ARGV[node], kid) or 0) end
  reply[#reply + 1] = sum
  reply[#reply + 1] = redis.call('EXISTS', p .. 'a:' .. kid)
end
return reply
