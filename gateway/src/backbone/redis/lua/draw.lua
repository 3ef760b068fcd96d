-- Draws on a user's allowance (GCRA).
-- KEYS: 1 the time, in microseconds of this server's clock, at which the allowance is whole again; none: it is whole.
-- ARGV: 1 what a command costs and 2 what may be spent at once, in microseconds, 3 commands wanted, 4 commands owed: they are
-- charged first.
-- Returns how many may pass, and if none may, after how many milliseconds all of them could.
local cost, burst, wanted, owed = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

-- Never more than a whole burst is taken in advance, even if the clock was set back, or the value is invalid.
local full_at = math.max(now, tonumber(redis.call('GET', KEYS[1])) or now)
full_at = math.min(full_at + owed * cost, now + burst)
local granted = math.min(wanted, math.floor((now + burst - full_at) / cost))
full_at = full_at + granted * cost

local life_ms = math.max(1, math.ceil((full_at - now) / 1000))
redis.call('SET', KEYS[1], string.format('%.0f', full_at), 'PX', string.format('%.0f', life_ms))
if granted > 0 then return {granted, 0} end
return {0, math.max(1, math.ceil((full_at + wanted * cost - burst - now) / 1000))}
