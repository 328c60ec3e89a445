#!lua flags=allow-oom
-- Say that nobody owns the partitions any more (planned stop). The epoch stays, so an old owner is still refused.
-- include _partition
-- KEYS  own of every partition named    ARGV for each: prefix epoch
-- Reply for each: {OK} | {FENCED, epoch, node}
local replies = {}
for i = 1, #ARGV, 2 do
  local fence = fenced(ARGV[i], ARGV[i + 1])
  if not fence then redis.call('HSET', ARGV[i] .. 'own', 'node', '') end
  replies[#replies + 1] = fence or {'OK'}
end
return replies
