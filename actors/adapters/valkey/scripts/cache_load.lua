#!lua flags=no-writes
-- Look at entries of the cache, as many as fit into the budget; one at least.
-- KEYS the entries, each of any program's making    ARGV budget bytes, bytes one may have
-- Reply {ms, value, expires ms, value, expires ms, ...} for the first so many of KEYS; the value is nil for nothing or
-- no string, a number for a string that is too long: its length.
local budget, longest = tonumber(ARGV[1]), tonumber(ARGV[2])
local reply, names, places = {0}, {}, {}
for i, key in ipairs(KEYS) do
  local length = redis.pcall('STRLEN', key)
  if type(length) ~= 'number' then
    reply[2 * i], reply[2 * i + 1] = false, -2
  elseif length > longest then
    reply[2 * i], reply[2 * i + 1] = length, -2
  else
    if length > math.max(budget, 0) and #names > 0 then break end
    budget = budget - length
    names[#names + 1], places[#places + 1] = key, 2 * i
    reply[2 * i], reply[2 * i + 1] = false, redis.call('PEXPIRETIME', key)
  end
end
if #names > 0 then
  for i, value in ipairs(redis.call('MGET', unpack(names))) do reply[places[i]] = value end
end
-- Last, so that what is left of an entry is never more than it says.
local t = redis.call('TIME')
reply[1] = t[1] * 1000 + math.floor(t[2] / 1000)
return reply
