#!lua flags=no-writes,allow-cross-slot-keys
-- How many tasks there are of each kind. What is forgotten is not counted.
-- include _partition
-- KEYS  own of the first partition named    ARGV[1] how long tasks are kept in ms, then the prefixes
-- Reply {live, retrying, started, done, dead, revoked}
local since = now_ms() - tonumber(ARGV[1])
local live, retrying, started, done, dead, gone = 0, 0, 0, 0, 0, 0
for i = 2, #ARGV do
  local p = ARGV[i]
  live = live + redis.call('ZCARD', p .. 'tlive')
  retrying = retrying + redis.call('SCARD', p .. 'tretry')
  for _, id in ipairs(redis.call('ZRANGE', p .. 'busy', 0, 999)) do if is_task(id) then started = started + 1 end end
  done = done + redis.call('ZCOUNT', p .. 'tdone', since, '+inf')
  dead = dead + redis.call('ZCOUNT', p .. 'tdead', since, '+inf')
  gone = gone + redis.call('ZCOUNT', p .. 'tgone', since, '+inf')
end
return {live, retrying, started, done, dead, gone}
