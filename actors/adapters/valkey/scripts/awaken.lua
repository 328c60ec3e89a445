#!lua flags=allow-oom
-- Somebody listens to channels of the router's own, which are few: remembered for a while, and every ear hears it.
-- KEYS  own of every partition named    ARGV[1] the channel for that, ARGV[2] ms, then for each: prefix kid name
-- Reply {1, ...}
local reply = {}
for i = 3, #ARGV, 3 do
  redis.call('SET', ARGV[i] .. 'a:' .. ARGV[i + 1], 1, 'PX', ARGV[2])
  redis.call('PUBLISH', ARGV[1], ARGV[i + 2])
  reply[#reply + 1] = 1
end
return reply
