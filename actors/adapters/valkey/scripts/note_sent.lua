#!lua flags=allow-oom
-- A WhatsApp message was sent through the API, by whomever. Commutative: any node may call it, no epoch.
-- include _partition
-- KEYS own    ARGV prefix mark kept_ms
-- Reply {OK}
local sent = ARGV[1] .. 'k:' .. ARGV[2]
redis.call('HSET', sent, 'api', 1)
if redis.call('PTTL', sent) < 0 then redis.call('PEXPIRE', sent, tonumber(ARGV[3])) end
return {'OK'}
