#!lua flags=no-writes,allow-cross-slot-keys
-- What is due soon, for whoever owns it: the safety net under every timer, and how a new owner learns of old batches.
-- include _partition
-- KEYS  own of the first partition named    ARGV[1] look-ahead ms, ARGV[2] rows of each kind and partition at most,
--   then for each partition: prefix, ready rows to pass over
-- Reply, only partitions with something due: {index of the prefix, {kid, deadline ms, due in ms, ...},
--   {delivery id, host, due in ms, ...}}
local now = now_ms()
local until_ms, limit = now + tonumber(ARGV[1]), tonumber(ARGV[2])
local reply = {}
for i = 3, #ARGV, 2 do
  local p = ARGV[i]
  local open = redis.call('ZRANGEBYSCORE', p .. 'open', '-inf', until_ms, 'WITHSCORES', 'LIMIT', 0, limit)
  local ready = redis.call('ZRANGEBYSCORE', p .. 'ready', '-inf', until_ms, 'WITHSCORES', 'LIMIT', ARGV[i + 1], limit)
  if #open > 0 or #ready > 0 then
    local batches, deliveries = {}, {}
    for j = 1, #open, 2 do
      local deadline = tonumber(open[j + 1])
      batches[#batches + 1], batches[#batches + 2], batches[#batches + 3] = open[j], deadline, math.max(deadline - now, 0)
    end
    for j = 1, #ready, 2 do
      deliveries[#deliveries + 1], deliveries[#deliveries + 2], deliveries[#deliveries + 3] =
        ready[j], redis.call('HGET', p .. 'd:' .. ready[j], 'h') or '', math.max(tonumber(ready[j + 1]) - now, 0)
    end
    reply[#reply + 1] = {(i - 3) / 2, batches, deliveries}
  end
end
return reply
