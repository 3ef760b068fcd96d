-- Puts back a revocation that Redis may have forgotten; a later one stays.
-- KEYS: the revocation. ARGV: unix seconds, seconds to keep it.
-- What can't be read gives way.
local known = tonumber(redis.pcall('GET', KEYS[1]) or '')
if not known or known < tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
end
