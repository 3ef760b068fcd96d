-- Opens the log of a user who connects, and renews its time to live.
-- KEYS: log, unread counts, and the time up to which the user's tokens are invalid, if it lies on the same server.
-- ARGV: nonce of a new epoch, when the token was issued ('' counts as long ago), the seq of a wanted entry or ''.
-- Returns nothing if the token is invalid; else epoch, floor, last, and the entry's body if the log has it.
-- A time that can't be read covers every token.
local revoked = KEYS[3] and redis.pcall('GET', KEYS[3])
if revoked then
  local at = type(revoked) == 'string' and string.match(revoked, '^%-?%d+$')
  if not at or ARGV[2] == '' or tonumber(ARGV[2]) <= tonumber(at) then return false end
end
local epoch, floor, last = head_of_open_log(ARGV[1])
local reply = {epoch, floor, last}
-- A log that was opened just now has its full time to live, and neither counts nor entries.
if string.sub(epoch, -#ARGV[1] - 1) ~= '-' .. ARGV[1] then
  call('EXPIRE', log, TTL)
  call('EXPIRE', counts, TTL)
  if ARGV[3] ~= '' then
    local entry = call('XRANGE', log, '1-' .. ARGV[3], '1-' .. ARGV[3])[1]
    if entry and stamp_of(entry) then reply[4] = body_of(entry) end
  end
end
return reply
