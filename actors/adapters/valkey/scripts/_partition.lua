-- What every script of a partition shares. `p` is the partition's prefix, 'buzon:{xx}:'; all its keys share one slot.
--   own         HASH  ep (epoch, decimal string), node
--   m:<kid>     HASH  the open batch of a key: k key, n messages, b bytes, f first ms, d deadline ms,
--                     p policy (JSON), h host, t traceparent
--   b:<kid>     LIST  its messages: id, received µs, payload, id, ...
--   i:<window>  SET   message ids taken in one dedupe window; two windows are looked at, each expires by itself;
--                     an open batch older than the windows is looked through itself
--   open        ZSET  kid -> deadline ms
--   o:<id>      LIST  a frozen batch, as b:<kid>; never changes again
--   d:<id>      HASH  a delivery: kid, k key, st status, n messages, r reason, c created ms, p policy, h host,
--                     t traceparent, a attempts claimed, x claims and f failures since it was last queued,
--                     nx next attempt ms, l<attempt> log line (JSON; a bare number: claimed then, never settled);
--                     a task besides: u updated ms, w 1 (not in its line before its time), eta ms, res result (JSON),
--                     dv the receipt, rq attempts when somebody wanted it to be tried again
--   q:<kid>     LIST  deliveries of a key that are neither delivered nor dead, oldest first; only the head may start
--   ready busy  ZSET  delivery -> ms it may be claimed from / was claimed at
--   live done dead ZSET delivery -> ms created / settled / died; the lists of the API
--   tlive tdone tdead tgone ZSET the same lists for tasks, and those revoked
--   tretry      SET   tasks that wait for their next try
--   k:<mark>    HASH  a WhatsApp message that was sent: t task, dv its receipt, api 1 (somebody else sent it)
--   c:<kid>     HASH  the head of a channel's stream: e epoch, s top offset
--   h:<kid>     STREAM its messages as <offset>-0: i id, d data; exactly as many as are kept
--   p:<hash>    STRING a message that is published once: its epoch and offset
--   f:<kid>:<mark> STRING how many messages of other Redis clients, counted from the mark, have offsets
--   w:<incarnation> HASH kid -> people who listen on a node
--   a:<kid>     STRING a channel of the router's own is awake

local function clock_us()
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]
end

local function now_ms()
  return math.floor(clock_us() / 1000)
end

-- Nil for the owner; a reply to give back for anyone whose epoch is not the stored one.
local function fenced(p, epoch)
  local own = redis.call('HMGET', p .. 'own', 'ep', 'node')
  if own[1] == epoch then return nil end
  return {'FENCED', own[1] or '0', own[2] or ''}
end

-- A task is a delivery whose id says so. Its lists are its own.
local function is_task(id)
  return string.sub(id, 1, 4) == 'tsk_'
end

local function list_of(p, id, list)
  return p .. (is_task(id) and 't' or '') .. list
end

local function set_status(p, id, status, now)
  redis.call('HSET', p .. 'd:' .. id, 'st', status)
  if not is_task(id) then return end
  redis.call('HSET', p .. 'd:' .. id, 'u', now)
  redis.call(status == 'retrying' and 'SADD' or 'SREM', p .. 'tretry', id)
end

-- How long records are kept, from four arguments: delivered ms, dead ms, delivered ones at the most, tasks ms.
local function kept_from(at)
  return {done = tonumber(ARGV[at]), dead = tonumber(ARGV[at + 1]), most = tonumber(ARGV[at + 2]), task = tonumber(ARGV[at + 3])}
end

-- Turn the open batch into a delivery. True when no earlier batch of the key is in its way.
local function freeze(p, kid, id, reason, now, batch)
  redis.call('RENAME', p .. 'b:' .. kid, p .. 'o:' .. id)
  redis.call('UNLINK', p .. 'm:' .. kid)
  redis.call('ZREM', p .. 'open', kid)
  redis.call('HSET', p .. 'd:' .. id, 'kid', kid, 'k', batch.key, 'st', 'pending', 'n', batch.n, 'r', reason,
    'c', now, 'p', batch.policy, 'h', batch.host, 't', batch.trace, 'a', 0, 'x', 0, 'f', 0)
  redis.call('ZADD', p .. 'live', now, id)
  local first = redis.call('RPUSH', p .. 'q:' .. kid, id) == 1
  if first then redis.call('ZADD', p .. 'ready', now, id) end
  return first
end

-- Take a delivery out of its key's line. Gives the next of that key (id, host) when it may start now, else '', ''.
local function leave_line(p, kid, id, now)
  local line = p .. 'q:' .. kid
  local was_head = redis.call('LINDEX', line, 0) == id
  redis.call('LREM', line, 1, id)
  if not was_head then return '', '' end
  local following = redis.call('LINDEX', line, 0)
  if not following then return '', '' end
  redis.call('ZADD', p .. 'ready', now, following)
  return following, redis.call('HGET', p .. 'd:' .. following, 'h')
end

-- File a delivery that has come to its end under `list` (done dead gone), to be forgotten after a while; what it
-- carried stays only with a dead one. Of the delivered ones, but of no tasks, the oldest go when there are too many.
local function file_away(p, id, list, now, kept)
  local filed = list_of(p, id, list)
  local ttl_ms = is_task(id) and kept.task or kept[list]
  redis.call('ZREM', list_of(p, id, 'live'), id)
  redis.call('ZADD', filed, now, id)
  redis.call('PEXPIRE', filed, ttl_ms)
  redis.call('PEXPIRE', p .. 'd:' .. id, ttl_ms)
  if list == 'dead' then redis.call('PEXPIRE', p .. 'o:' .. id, ttl_ms) else redis.call('UNLINK', p .. 'o:' .. id) end
  redis.call('ZREMRANGEBYSCORE', filed, '-inf', now - ttl_ms)
  local over = (list == 'dead' or is_task(id)) and 0 or redis.call('ZCARD', filed) - kept.most
  if over > 0 then
    local oldest = redis.call('ZPOPMIN', filed, math.min(over, 16))
    for i = 1, #oldest, 2 do redis.call('UNLINK', p .. 'd:' .. oldest[i], p .. 'o:' .. oldest[i]) end
  end
end

-- A delivery dies: out of the line, into the dead letters.
local function bury(p, kid, id, now, kept)
  redis.call('ZREM', p .. 'busy', id)
  set_status(p, id, 'dead', now)
  redis.call('HDEL', p .. 'd:' .. id, 'nx')
  file_away(p, id, 'dead', now, kept)
  return leave_line(p, kid, id, now)
end
