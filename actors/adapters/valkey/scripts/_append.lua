-- What the scripts share that put messages into open batches.

-- Whether an open batch holds the message; only looked at when the batch is older than what the windows remember.
local function holds(batch, message_id)
  for _, at in ipairs(redis.call('LPOS', batch, message_id, 'COUNT', 0)) do
    if at % 3 == 0 then return true end
  end
  return false
end

-- Append items from the `from`-th on, however many: a call takes only so many arguments.
local function push_all(list, items, from)
  for i = from, #items, 3000 do redis.call('RPUSH', list, unpack(items, i, math.min(i + 2999, #items))) end
end
