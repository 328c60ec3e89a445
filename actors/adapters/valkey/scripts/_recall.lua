-- How streams are read.
local CHUNK = 16 -- entries of up to 1 MiB: what is read and then has no room costs no more than this

-- Messages after an offset: {offset, id, data, ...}, how many bytes of data, and 1 when the bounds cut them short. One
-- that is too large for the `room` comes alone.
local function read(h, after, top, limit, room)
  local found, n, bytes, from, chunk = {}, 0, 0, after + 1, 1
  while from <= top and n < limit do
    local entries = redis.call('XRANGE', h, from .. '-0', '+', 'COUNT', math.min(chunk, limit - n))
    if #entries == 0 then return found, bytes, 0 end
    for _, entry in ipairs(entries) do
      local id, data = entry[2][2], entry[2][4]
      if n > 0 and bytes + #data > room then return found, bytes, 1 end
      local offset = tonumber(string.match(entry[1], '^%d+'))
      found[3 * n + 1], found[3 * n + 2], found[3 * n + 3] = offset, id, data
      n, bytes, from = n + 1, bytes + #data, offset + 1
    end
    chunk = math.min(2 * chunk, CHUNK)
  end
  return found, bytes, from <= top and 1 or 0
end

-- Whether something is wanted after a position, in a stream of this epoch. No offset: only where it stands is wanted.
local function wants(epoch, offset, current)
  return offset ~= '' and (epoch == '' or epoch == current)
end
