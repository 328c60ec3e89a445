#!lua
-- Say what an empty store is from now on: whose it is, and what its data looks like. Nothing when it says so already.
-- KEYS[1] the store's own record    ARGV field, value, ...
-- Reply {written 0|1}
if redis.call('EXISTS', KEYS[1]) == 1 then return {0} end
redis.call('HSET', KEYS[1], unpack(ARGV))
return {1}
