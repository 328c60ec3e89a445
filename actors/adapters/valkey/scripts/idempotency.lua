#!lua
-- Keep the first answer given under an idempotency key.
-- KEYS the record    ARGV[1] fingerprint, ARGV[2] answer, ARGV[3] ttl ms
-- Record and reply: fingerprint, then, once somebody has answered, the answer
local record = redis.call('GET', KEYS[1])
if record and #record > #ARGV[1] then return record end
redis.call('SET', KEYS[1], ARGV[1] .. ARGV[2], 'PX', ARGV[3])
return ARGV[1] .. ARGV[2]
