#!lua flags=no-writes,allow-cross-slot-keys
-- One page of a list that is spread over partitions: walks them in order, each by score and then by name.
-- include _partition
-- KEYS  own of the first partition named
-- ARGV[1] list (open live done dead, tlive tdone tdead tgone), ARGV[2] rows wanted, ARGV[3] rows looked at at the most,
--   ARGV[4] score and ARGV[5] name after which the first partition goes on ('' both: from its start),
--   ARGV[6] status wanted ('' any), ARGV[7] kid wanted ('' any), ARGV[8] host wanted ('' any),
--   then the prefixes
-- Reply {{row, ...}, index of the prefix to go on with (-1: that was all), score, name}
--   row of open: index of its prefix, kid, score, key, n, bytes, remaining ms
--   row of deliveries: index of its prefix, id, score, HGETALL of its record
local list, wanted, budget = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local after_score, after_name = ARGV[4], ARGV[5]
local status, kid, host = ARGV[6], ARGV[7], ARGV[8]
local now = now_ms()
local rows = {}

-- The order of a sorted set's members is that of their bytes; Lua's own `>` goes by the server's locale.
local function comes_after(a, b)
  for at = 1, math.min(#a, #b) do
    local x, y = a:byte(at), b:byte(at)
    if x ~= y then return x > y end
  end
  return #a > #b
end

local function row_of(index, p, name, raw)
  local score = tonumber(raw)
  if list == 'open' then
    local m = redis.call('HMGET', p .. 'm:' .. name, 'k', 'n', 'b')
    if not m[1] then return nil end
    return {index, name, raw, m[1], tonumber(m[2]), tonumber(m[3]), math.max(score - now, 0)}
  end
  local d = redis.call('HMGET', p .. 'd:' .. name, 'st', 'kid', 'h')
  local unwanted = (status ~= '' and d[1] ~= status) or (kid ~= '' and d[2] ~= kid) or (host ~= '' and d[3] ~= host)
  if not d[1] or unwanted then return nil end
  return {index, name, raw, redis.call('HGETALL', p .. 'd:' .. name)}
end

for i = 9, #ARGV do
  local p, score, name, skip = ARGV[i], after_score, after_name, 0
  local passed_score, passed_name = after_score, after_name
  after_score, after_name = '', ''
  local found
  repeat
    found = redis.call('ZRANGEBYSCORE', p .. list, score == '' and '-inf' or score, '+inf', 'WITHSCORES', 'LIMIT', skip, 100)
    for j = 1, #found, 2 do
      if #rows >= wanted or budget <= 0 then return {rows, i - 9, score, name} end
      if found[j + 1] ~= score then skip = 0 end
      score, skip = found[j + 1], skip + 1
      if score ~= passed_score or comes_after(found[j], passed_name) then
        budget = budget - 1
        name = found[j]
        rows[#rows + 1] = row_of(i - 9, p, name, score)
      end
    end
  until #found < 200
end
return {rows, -1, '', ''}
