-- Puts loaded unread counts into the hash KEYS[1]; both ends of a count are only ever raised, and the total moves along.
-- ARGV: 1 seconds to live, 2 the mark to take away, or '', then conversation, last seq and seen seq of each.
local hash = KEYS[1]
local total = tonumber(redis.call('HGET', hash, 'total') or '0')
for at = 3, #ARGV, 3 do
  local field, l, s = 'c:' .. ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local had = redis.call('HGET', hash, field)
  if had then
    local had_l, had_s = string.match(had, '^(%d+) (%d+)$')
    had_l, had_s = tonumber(had_l), tonumber(had_s)
    if had_l > had_s then total = total - (had_l - had_s) end
    l, s = math.max(l, had_l), math.max(s, had_s)
  end
  if l > s then total = total + l - s end
  redis.call('HSET', hash, field, string.format('%.0f %.0f', l, s))
end
redis.call('HSET', hash, 'total', string.format('%.0f', total))
if ARGV[2] ~= '' then redis.call('HDEL', hash, ARGV[2]) end
redis.call('EXPIRE', hash, ARGV[1])
return 1
