#!lua flags=no-writes,allow-cross-slot-keys
-- How much waits, and how long the oldest has waited.
-- include _partition
-- KEYS  own of the first partition named    ARGV prefixes
-- Reply {open batches, undelivered batches, age in ms of the oldest undelivered batch, or lateness of a task if that is more,
--   {claimed delivery, ...}, now ms}
local now = now_ms()
local open, live, oldest = 0, 0, now
local claimed = {}
for i = 1, #ARGV do
  local p = ARGV[i]
  open = open + redis.call('ZCARD', p .. 'open')
  local first = redis.call('ZRANGE', p .. 'live', 0, 0, 'WITHSCORES')
  if first[1] then
    live = live + redis.call('ZCARD', p .. 'live')
    oldest = math.min(oldest, tonumber(first[2]))
  end
  local due = redis.call('ZRANGE', p .. 'ready', 0, 0, 'WITHSCORES')
  if due[1] then oldest = math.min(oldest, tonumber(due[2])) end
  for _, id in ipairs(redis.call('ZRANGE', p .. 'busy', 0, 99)) do claimed[#claimed + 1] = id end
end
return {open, live, now - oldest, claimed, now}
