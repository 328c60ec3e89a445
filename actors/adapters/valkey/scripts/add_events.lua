#!lua
-- Put the inventory's events into their stream, each once: those whose numbers it has had already are left out.
-- KEYS  the stream    ARGV[1] events kept, then for each: number, event id, type, data, at
-- Reply {events added}
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local top = last[1] and tonumber(string.match(last[1][1], '^(%d+)')) or 0
local added = 0
for i = 2, #ARGV, 5 do
  if tonumber(ARGV[i]) > top then
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], ARGV[i] .. '-0', 'event_id', ARGV[i + 1], 'type', ARGV[i + 2],
      'data', ARGV[i + 3], 'at', ARGV[i + 4])
    added = added + 1
  end
end
return {added}
