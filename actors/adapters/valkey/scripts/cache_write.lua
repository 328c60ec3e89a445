-- Set, delete and expire entries of the cache, each by itself.
-- KEYS an entry for each write    ARGV 'each', or 'all' (none when one is no string), or 'sets' (the same, and there are
--   sets among them), then for each write in turn
--   ttl, value                                        set; the ttl is ms, 0 for ever
--   d                                                 delete
--   e<ttl>                                            expire
--   c<any of these but with the value in its place>, if_match, if_none_match, [value]   ... when conditions hold
--   before any of these: o, mark, ms                  ... once: done already when there is the mark, a key of the
--                                                     router's own in the entry's slot; leaves it for so long
-- Reply for each write 1 done, 0 absent, 2 no string, 3 a condition did not hold, or the text of an error;
-- with 'all' and 'sets' {-1, place} when that one is no string.
-- No shebang: a server without memory still runs this, deletes, and refuses each set.
local TAGGED_MAX = 33554432

-- A server that is full judges only the first write of a script. This changes nothing, and asks.
local trial = redis.pcall('SETRANGE', KEYS[1], 0, '')
local full = false
if type(trial) == 'table' and trial.err and string.sub(trial.err, 1, 9) ~= 'WRONGTYPE' then
  if ARGV[1] == 'sets' or string.sub(trial.err, 1, 3) ~= 'OOM' then return trial end
  full = trial.err
end

local function kind_of(key)
  return redis.call('TYPE', key).ok
end

local function tag_of(key)
  if redis.call('STRLEN', key) > TAGGED_MAX then return '' end
  return redis.sha1hex(redis.call('GET', key))
end

local function listed(tags, key)
  return string.find(',' .. tags .. ',', ',' .. tag_of(key) .. ',', 1, true) ~= nil
end

local function holds(key, there, if_match, if_none_match)
  if if_match ~= '' and not (there and (if_match == '*' or listed(if_match, key))) then return false end
  if if_none_match ~= '' and there and (if_none_match == '*' or listed(if_none_match, key)) then return false end
  return true
end

local function outcome_of(reply)
  if type(reply) == 'table' and reply.err then return reply.err end
  return 1
end

local function set(key, ttl, value)
  if full then return full end
  if ttl == '0' then return outcome_of(redis.pcall('SET', key, value)) end
  return outcome_of(redis.pcall('SET', key, value, 'PX', ttl))
end

local function expire(key, ttl)
  if ttl == '0' then return outcome_of(redis.pcall('PERSIST', key)) end
  return outcome_of(redis.pcall('PEXPIRE', key, ttl))
end

if ARGV[1] ~= 'each' then
  for i, key in ipairs(KEYS) do
    local kind = kind_of(key)
    if kind ~= 'string' and kind ~= 'none' then return {-1, i} end
  end
end
local reply, at = {}, 2
for i, key in ipairs(KEYS) do
  local once, once_ms, again = false, 0, false
  if ARGV[at] == 'o' then
    once, once_ms = ARGV[at + 1], ARGV[at + 2]
    again = redis.call('EXISTS', once) == 1
    at = at + 3
  end
  local what, kind = ARGV[at], kind_of(key)
  local mark, there = string.sub(what, 1, 1), kind == 'string'
  local outcome = (kind == 'string' or kind == 'none') and 1 or 2
  at = at + 1
  if mark == 'c' then
    if outcome == 1 and not again and not holds(key, there, ARGV[at], ARGV[at + 1]) then outcome = 3 end
    at = at + 2
    what = string.sub(what, 2)
    mark = string.sub(what, 1, 1)
  end
  if again then
    outcome = 1
    if mark ~= 'd' and mark ~= 'e' then at = at + 1 end
  elseif mark == 'd' then
    if outcome == 1 then outcome = there and outcome_of(redis.pcall('UNLINK', key)) or 0 end
  elseif mark == 'e' then
    if outcome == 1 then outcome = there and expire(key, string.sub(what, 2)) or 0 end
  else
    if outcome == 1 then outcome = set(key, what, ARGV[at]) end
    at = at + 1
  end
  if once and outcome == 1 and not again then redis.pcall('SET', once, 1, 'PX', once_ms) end
  reply[i] = outcome
end
return reply
