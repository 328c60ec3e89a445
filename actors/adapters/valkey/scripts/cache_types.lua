#!lua flags=no-writes
-- Look for a key that is no entry of the cache.
-- KEYS any
-- Reply the place of the first that is no string, 0 for none
for i, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'string' and kind ~= 'none' then return i end
end
return 0
