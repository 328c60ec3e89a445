#!lua flags=allow-oom
-- Take back tasks that were acknowledged before the store lost them, each before those of its line that were received
-- later: other nodes do the same, one after the other.
-- include _partition
-- include _task
-- KEYS  own of every partition named    ARGV for each: prefix kid id key text policy host trace due_ms received_us (0: now)
-- Reply for each: 1 added, 0 known already
local now_us = clock_us()
local now = math.floor(now_us / 1000)
local replies = {}

-- Put it before the first of its line that came later; nobody overtakes one that is being sent.
local function join_line(p, kid, id, at_us)
  local line = p .. 'q:' .. kid
  for place, other in ipairs(redis.call('LRANGE', line, 0, -1)) do
    local later = tonumber(redis.call('LINDEX', p .. 'o:' .. other, 1) or 0) > at_us
    if later and not redis.call('ZSCORE', p .. 'busy', other) then
      redis.call('LINSERT', line, 'BEFORE', other, id)
      if place == 1 then redis.call('ZREM', p .. 'ready', other) end
      return place == 1
    end
  end
  return redis.call('RPUSH', line, id) == 1
end

for i = 1, #ARGV, 10 do
  local p, kid, id, due, at_us = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 8]), tonumber(ARGV[i + 9])
  local known = redis.call('EXISTS', p .. 'd:' .. id) == 1
  if not known then
    if at_us == 0 then at_us = now_us end
    new_task(p, kid, id, ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6], ARGV[i + 7], at_us)
    if due > now then
      set_aside(p, id, due)
    elseif join_line(p, kid, id, at_us) then
      redis.call('ZADD', p .. 'ready', now, id)
    end
  end
  replies[#replies + 1] = known and 0 or 1
end
return replies
