#!lua
-- Put the inventory's events into their stream, each once: those whose numbers it has had already are left out.
-- A number that another event has says that the stream is of another database, or of later than one that was restored:
-- then it begins anew.
-- KEYS  the stream    ARGV[1] events kept, then for each: number, event id, type, data, at
-- Reply {events added, number of the last entry before, as text: a foreign one may be larger than a number can be}
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local before = last[1] and string.match(last[1][1], '^(%d+)') or '0'
local top = tonumber(before)
local added = 0

local function is_anothers(number, event_id)
  local found = redis.call('XRANGE', KEYS[1], number .. '-0', number .. '-0')[1]
  for at = 1, found and #found[2] or 0, 2 do
    if found[2][at] == 'event_id' then return found[2][at + 1] ~= event_id end
  end
  return found ~= nil
end

for i = 2, #ARGV, 5 do
  if tonumber(ARGV[i]) <= top and is_anothers(ARGV[i], ARGV[i + 1]) then
    redis.call('UNLINK', KEYS[1])
    before, top = '0', 0
    break
  end
end
for i = 2, #ARGV, 5 do
  if tonumber(ARGV[i]) > top then
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], ARGV[i] .. '-0', 'event_id', ARGV[i + 1], 'type', ARGV[i + 2],
      'data', ARGV[i + 3], 'at', ARGV[i + 4])
    added = added + 1
  end
end
return {added, before}
