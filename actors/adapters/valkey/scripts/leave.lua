#!lua flags=allow-oom
-- Take a node's record away when it stops, unless another process has the name by now.
-- KEYS[1] the nodes' records, KEYS[2] the log
-- ARGV[1] node, ARGV[2] incarnation, ARGV[3] how long the log may grow, then events
-- Reply {removed 0|1}
local own = redis.call('HGET', KEYS[1], ARGV[1])
local removed = 0
if own and string.sub(own, 1, #ARGV[2]) == ARGV[2] then removed = redis.call('HDEL', KEYS[1], ARGV[1]) end
for i = 4, #ARGV do redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', 'e', ARGV[i]) end
if #ARGV > 3 then redis.call('EXPIRE', KEYS[2], 604800) end
return {removed}
