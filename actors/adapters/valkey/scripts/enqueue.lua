#!lua
-- Take tasks in. Commutative and deduplicated by id: any node may call it, no epoch. Without allow-oom: refused whole when
-- memory is full.
-- include _partition
-- include _task
-- KEYS  own of every partition named    ARGV for each: prefix kid id key text policy host trace due_ms (0: now)
-- Reply, flat, for each: code (0 waits in its line, 1 known already, 2 first in its line, 3 wanted later), due in ms; at the
--   end the time at which all this was, in µs
local now_us = clock_us()
local now = math.floor(now_us / 1000)
local reply = {}

for i = 1, #ARGV, 9 do
  local p, kid, id, due = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 8])
  local code = 1
  if redis.call('EXISTS', p .. 'd:' .. id) == 0 then
    new_task(p, kid, id, ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6], ARGV[i + 7], now_us)
    if due > now then
      code = 3
      set_aside(p, id, due)
    else
      code = redis.call('RPUSH', p .. 'q:' .. kid, id) == 1 and 2 or 0
      if code == 2 then redis.call('ZADD', p .. 'ready', now, id) end
    end
  end
  reply[#reply + 1], reply[#reply + 2] = code, math.max(due - now, 0)
end
reply[#reply + 1] = now_us
return reply
