#!lua flags=allow-oom
-- How many people listen on a node. With allow-oom: they listen to a full store, too, and what is said here expires.
-- KEYS  own of every partition named    ARGV[1] the node's incarnation, ARGV[2] ms for which it holds, then for each
--   report: prefix, 1 when it is the whole, n, then n times kid people
-- Reply {1 | 0 when the earlier reports are forgotten, and nothing was written, ...}
local reply, i = {}, 3
while i <= #ARGV do
  local w, whole, n = ARGV[i] .. 'w:' .. ARGV[1], ARGV[i + 1] == '1', tonumber(ARGV[i + 2])
  if whole then redis.call('UNLINK', w) end
  local known = whole or redis.call('EXISTS', w) == 1
  if known then
    -- Keeps the hash when nobody listens any more: that is something else than to have forgotten.
    redis.call('HSET', w, '.', 0)
    for at = i + 3, i + 1 + 2 * n, 2 do
      if ARGV[at + 1] == '0' then redis.call('HDEL', w, ARGV[at]) else redis.call('HSET', w, ARGV[at], ARGV[at + 1]) end
    end
    redis.call('PEXPIRE', w, ARGV[2])
  end
  reply[#reply + 1] = known and 1 or 0
  i = i + 3 + 2 * n
end
return reply
