#!lua flags=no-writes
-- Read a stream.
-- include _recall
-- KEYS  own of the partition
-- ARGV[1] prefix, ARGV[2] kid, ARGV[3] epoch and ARGV[4] offset after which ('': only where it stands; any epoch),
--   ARGV[5] limit, ARGV[6] bytes
-- Reply {epoch ('' when the stream has none), top, 1 when bounds cut it short, {offset, id, data, ...}}
local head = redis.call('HMGET', ARGV[1] .. 'c:' .. ARGV[2], 'e', 's')
if not head[1] then return {'', 0, 0, {}} end
local top = tonumber(head[2])
if not wants(ARGV[3], ARGV[4], head[1]) then return {head[1], top, 0, {}} end
local found, _, more = read(ARGV[1] .. 'h:' .. ARGV[2], tonumber(ARGV[4]), top, tonumber(ARGV[5]), tonumber(ARGV[6]))
return {head[1], top, more, found}
