#!lua flags=allow-oom
-- Keep facts about WhatsApp instances. Whoever may post events chooses their names, so there is only so much room.
-- KEYS  the hash    ARGV for each: what, instance, value ('': take it away)
-- Reply {facts that found no room}
local FIELDS_MAX = 10000
local refused = 0
for i = 1, #ARGV, 3 do
  local field = ARGV[i] .. ':' .. ARGV[i + 1]
  if ARGV[i + 2] == '' then
    redis.call('HDEL', KEYS[1], field)
  elseif redis.call('HEXISTS', KEYS[1], field) == 1 or redis.call('HLEN', KEYS[1]) < FIELDS_MAX then
    redis.call('HSET', KEYS[1], field, ARGV[i + 2])
  else
    refused = refused + 1
  end
end
return {refused}
