#!lua flags=allow-oom
-- Keep facts about WhatsApp instances. Whoever may post events chooses their names, so there is only so much room: those that
-- were not heard of for longest go.
-- KEYS  the hash, KEYS[2] when each instance was heard of    ARGV for each fact: what, instance, value ('': take it away)
-- Reply {instances that went}
local INSTANCES_MAX = 1000
local WHATS = {'state', 'state_at', 'state_reason', 'held', 'held_at', 'sent_at', 'failed_at', 'failed', 'event_at'}
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
for i = 1, #ARGV, 3 do
  local field = ARGV[i] .. ':' .. ARGV[i + 1]
  redis.call('ZADD', KEYS[2], now, ARGV[i + 1])
  if ARGV[i + 2] == '' then redis.call('HDEL', KEYS[1], field) else redis.call('HSET', KEYS[1], field, ARGV[i + 2]) end
end
local over = redis.call('ZCARD', KEYS[2]) - INSTANCES_MAX
if over <= 0 then return {0} end
local oldest = redis.call('ZPOPMIN', KEYS[2], over)
for i = 1, #oldest, 2 do
  for _, what in ipairs(WHATS) do redis.call('HDEL', KEYS[1], what .. ':' .. oldest[i]) end
end
return {over}
