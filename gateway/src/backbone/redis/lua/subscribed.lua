-- Counts a user's subscriptions. KEYS: the user's log, so that only the server with the slot answers. ARGV: channel.
return redis.call('PUBSUB', NUMSUB, ARGV[1])[2]
