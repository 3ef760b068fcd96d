-- Takes users whose check is due. KEYS: offline due. ARGV: unix ms, at most so many, ms from a sign of life to its check,
-- prefix of online keys, prefix of last seen keys. Returns user and last seen (unix ms) of each that is offline.
-- A time in ms with more digits lies beyond the year 9999.
local SEEN_DIGITS = 15
local now, life = tonumber(ARGV[1]), tonumber(ARGV[3])
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'WITHSCORES', 'LIMIT', '0', ARGV[2])
local gone = {}
for at = 1, #due, 2 do
  local user = due[at]
  if redis.call('EXISTS', ARGV[4] .. user) == 1 then
    redis.call('ZADD', KEYS[1], string.format('%.0f', now + life), user)
  else
    redis.call('ZREM', KEYS[1], user)
    local seen = redis.pcall('GET', ARGV[5] .. user)
    local last_sign = math.max(tonumber(due[at + 1]) - life, 0)
    -- A node that died wrote no time, and another program something else: then the last sign of life counts.
    if type(seen) ~= 'string' or not string.match(seen, '^%d+$') or #seen > SEEN_DIGITS or tonumber(seen) < last_sign then
      seen = string.format('%.0f', last_sign)
      redis.call('SET', ARGV[5] .. user, seen)
    end
    gone[#gone + 1] = user
    gone[#gone + 1] = seen
  end
end
return gone
