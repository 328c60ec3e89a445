-- What scripts that change a partition's owner share.

-- Above the stored epoch, the highest the caller has seen, and Redis' time in microseconds: it cannot repeat even when
-- the store comes back with an older state. As text: Lua's numbers would round.
local function next_epoch(stored, seen)
  local t = redis.call('TIME')
  return string.format('%.0f', math.max(tonumber(stored) + 1, t[1] * 1000000 + t[2], tonumber(seen) + 1))
end

-- Make what the last owner had in hand ready again. Gives how many deliveries that were.
-- Attempts that were cut off more than once may be what stopped their nodes: they come back apart from each other, or
-- one poison batch would take its neighbours along until they are all taken for poison.
local SPREAD_MS = 2000
local function put_back(p, epoch, now)
  local busy = redis.call('ZRANGE', p .. 'busy', 0, -1)
  for _, id in ipairs(busy) do
    redis.call('ZREM', p .. 'busy', id)
    local counted = redis.call('HMGET', p .. 'd:' .. id, 'f', 'x')
    if counted[1] then
      local failures, cut_off = tonumber(counted[1]), tonumber(counted[2]) - tonumber(counted[1])
      local place = tonumber(string.sub(redis.sha1hex(id .. epoch), 1, 4), 16) / 65536
      set_status(p, id, failures > 0 and 'retrying' or 'pending', now)
      redis.call('ZADD', p .. 'ready', now + math.floor((cut_off - 1) * SPREAD_MS * place), id)
    end
  end
  return #busy
end
