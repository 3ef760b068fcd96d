-- Draws on a user's allowance (GCRA), as Draw::decide does.
-- KEYS: 1 the time, in microseconds of this server's clock, at which the allowance is whole again; none: it is whole.
-- ARGV: 1 what a command costs and 2 what may be spent at once, in microseconds, 3 commands wanted, 4 commands owed: they are
-- charged first, 5 the commands without which none is granted, where half a burst is enough for any number, 6 the most by which
-- the allowance may be in debt, in microseconds.
-- Returns how many may pass, and if none may, after how many milliseconds all of them could.
local cost, burst, wanted, owed = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local least, debt = tonumber(ARGV[5]), tonumber(ARGV[6])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

-- A debt has an end, even if the clock was set back, or the value is invalid. A key of another type has none.
local full_at = math.max(now, tonumber(redis.pcall('GET', KEYS[1])) or now)
full_at = math.min(full_at + owed * cost, now + debt)
local half = math.max(1, math.floor(burst / 2 / cost))
local affordable, granted = math.floor((now + burst - full_at) / cost), 0
if affordable >= math.max(1, math.min(least, half)) then granted = math.max(least, math.min(wanted, affordable)) end
full_at = full_at + granted * cost

local life_ms = math.max(1, math.ceil((full_at - now) / 1000))
redis.call('SET', KEYS[1], string.format('%.0f', full_at), 'PX', string.format('%.0f', life_ms))
if granted > 0 then return {granted, 0} end
local enough = math.min(math.max(wanted, least), half)
return {0, math.max(1, math.ceil((full_at + enough * cost - burst - now) / 1000))}
