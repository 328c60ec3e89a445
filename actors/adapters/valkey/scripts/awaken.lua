#!lua flags=allow-oom
-- Somebody listens to channels of the router's own, which are few: remembered for a while, and every ear hears it.
-- While nobody listened nothing was told, so what a channel that was asleep holds is of another epoch: it is dropped.
-- KEYS  own of every partition named    ARGV[1] the channel for that, ARGV[2] ms, then for each: prefix kid name
-- Reply {1, ...}
local reply = {}
for i = 3, #ARGV, 3 do
  local p, kid = ARGV[i], ARGV[i + 1]
  if redis.call('EXISTS', p .. 'a:' .. kid) == 0 then redis.call('UNLINK', p .. 'c:' .. kid, p .. 'h:' .. kid) end
  redis.call('SET', p .. 'a:' .. kid, 1, 'PX', ARGV[2])
  redis.call('PUBLISH', ARGV[1], ARGV[i + 2])
  reply[#reply + 1] = 1
end
return reply
