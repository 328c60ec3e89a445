#!lua flags=allow-oom
-- A node's sign of life, and everybody else's in return. Also buries the dead and writes the cluster's log.
-- KEYS[1] the store's own record, KEYS[2] the nodes' records, KEYS[3] the log
-- ARGV[1] cluster, ARGV[2] node, ARGV[3] incarnation, ARGV[4] beat, ARGV[5] its record as JSON, ARGV[6] number of dead,
--   then for each: node, its sign as it was seen; then how long the log may grow, then events as JSON
-- Reply {OK, {record, ...}} | {REPLACED} | {FOREIGN, cluster found or ''}
-- A record is stored as: incarnation beat JSON. The first two are the sign of life.
local found = redis.call('HGET', KEYS[1], 'cluster') or ''
if found ~= ARGV[1] then return {'FOREIGN', found} end
local node, incarnation, beat = ARGV[2], ARGV[3], ARGV[4]
local own = redis.call('HGET', KEYS[2], node)
-- The first beat of a process takes the name over; whoever had it before finds another incarnation with its next one.
if own and beat ~= '1' and string.sub(own, 1, #incarnation) ~= incarnation then return {'REPLACED'} end
redis.call('HSET', KEYS[2], node, incarnation .. ' ' .. beat .. ' ' .. ARGV[5])
local at = 7
for _ = 1, tonumber(ARGV[6]) do
  local stands = redis.call('HGET', KEYS[2], ARGV[at])
  if stands and string.sub(stands, 1, #ARGV[at + 1]) == ARGV[at + 1] then redis.call('HDEL', KEYS[2], ARGV[at]) end
  at = at + 2
end
for i = at + 1, #ARGV do redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[at], '*', 'e', ARGV[i]) end
if #ARGV > at then redis.call('EXPIRE', KEYS[3], 604800) end
return {'OK', redis.call('HVALS', KEYS[2])}
