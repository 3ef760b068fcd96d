-- Removes a push job that has ended.
-- ARGV: 1 the consumer group, 2 the entry.
redis.call('XACK', stream, ARGV[1], ARGV[2])
local entry = redis.call('XRANGE', stream, ARGV[2], ARGV[2])[1]
if entry and redis.call('XDEL', stream, ARGV[2]) == 1 then uncount(entry[2]) end
