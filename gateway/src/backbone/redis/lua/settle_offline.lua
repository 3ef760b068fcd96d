-- Settles the checks of users who were due. KEYS: offline due. ARGV: user, the score that was read, and the new one, or ''
-- to take them, of each. Returns 1 for each user who was taken. A user with another score has shown life, or another
-- node has settled it.
local taken = {}
for at = 1, #ARGV, 3 do
  local user, read, new = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local score = redis.call('ZSCORE', KEYS[1], user)
  local is_same = score and tonumber(score) == tonumber(read)
  taken[#taken + 1] = (is_same and new == '') and 1 or 0
  if is_same and new == '' then
    redis.call('ZREM', KEYS[1], user)
  elseif is_same then
    redis.call('ZADD', KEYS[1], new, user)
  end
end
return taken
