-- Marks a user offline unless another node is subscribed for them. Returns 1 if none is.
-- KEYS: online, last seen, offline due. ARGV: channel, subscriptions that don't count, user, unix ms, ms until the check.
if redis.call('PUBSUB', NUMSUB, ARGV[1])[2] > tonumber(ARGV[2]) then return 0 end
if redis.call('DEL', KEYS[1]) == 0 then return 1 end
redis.call('SET', KEYS[2], ARGV[4])
redis.call('ZADD', KEYS[3], 'XX', string.format('%.0f', tonumber(ARGV[4]) + tonumber(ARGV[5])), ARGV[3])
return 1
