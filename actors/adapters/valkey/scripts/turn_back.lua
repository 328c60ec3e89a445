#!lua flags=allow-oom
-- The server's clock was turned back: what was to be done at a time that is ahead now moves back with it, or it would
-- wait for as long as the clock was turned. Of each list at most so many rows; the caller's epoch must be the stored one.
-- include _partition
-- KEYS  own of every partition named    ARGV for each: prefix epoch ms
-- Reply for each: {OK} | {FENCED, epoch, node}
local ROWS_MAX = 10000
local now = now_ms()
local replies = {}

local function turn_back(p, epoch, ms)
  local fence = fenced(p, epoch)
  if fence then return fence end
  local open = redis.call('ZRANGEBYSCORE', p .. 'open', '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, ROWS_MAX)
  for i = 1, #open, 2 do
    redis.call('ZADD', p .. 'open', tonumber(open[i + 1]) - ms, open[i])
    redis.call('HINCRBY', p .. 'm:' .. open[i], 'd', -ms)
    redis.call('HINCRBY', p .. 'm:' .. open[i], 'f', -ms)
  end
  local ready = redis.call('ZRANGEBYSCORE', p .. 'ready', '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, ROWS_MAX)
  for i = 1, #ready, 2 do
    -- Somebody named the time at which a task is wanted: that one stays.
    local record = p .. 'd:' .. ready[i]
    if redis.call('HEXISTS', record, 'w') == 0 then
      redis.call('ZADD', p .. 'ready', tonumber(ready[i + 1]) - ms, ready[i])
      if redis.call('HEXISTS', record, 'nx') == 1 then redis.call('HINCRBY', record, 'nx', -ms) end
    end
  end
  return {'OK'}
end

for i = 1, #ARGV, 3 do replies[#replies + 1] = turn_back(ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])) end
return replies
