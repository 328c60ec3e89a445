-- What the scripts share that take tasks in. A task is a delivery from its beginning; it is known by its id.

local function new_task(p, kid, id, key, text, policy, host, trace, received_us)
  local at = math.floor(received_us / 1000)
  redis.call('HSET', p .. 'd:' .. id, 'kid', kid, 'k', key, 'st', 'pending', 'n', 1, 'r', 'manual', 'c', at, 'u', at,
    'p', policy, 'h', host, 't', trace, 'a', 0, 'x', 0, 'f', 0)
  redis.call('RPUSH', p .. 'o:' .. id, id, received_us, text)
  redis.call('ZADD', p .. 'tlive', at, id)
end

-- A task that is wanted later joins its line then: nobody waits behind it.
local function set_aside(p, id, due)
  redis.call('HSET', p .. 'd:' .. id, 'w', 1, 'eta', due)
  redis.call('ZADD', p .. 'ready', due, id)
end
