-- Opens the log of a user who connects, and renews its time to live.
-- KEYS: log, and the time up to which the user's tokens are invalid, if it lies on the same server.
-- ARGV: nonce of a new epoch, when the token was issued ('' counts as long ago), the seq of a wanted entry or '', how many
-- entries to read back from that one.
-- Returns nothing if the token is invalid; else epoch, floor, last, then seq and body of these entries, newest first.
-- A time that can't be read covers every token.
local revoked = KEYS[2] and redis.pcall('GET', KEYS[2])
if revoked then
  local at = type(revoked) == 'string' and string.match(revoked, '^%-?%d+$')
  if not at or ARGV[2] == '' or tonumber(ARGV[2]) <= tonumber(at) then return false end
end
local epoch, floor, last = head_of_open_log(ARGV[1])
local reply = {epoch, floor, last}
-- A log that was opened just now has its full time to live, and no entries.
if string.sub(epoch, -#ARGV[1] - 1) ~= '-' .. ARGV[1] then
  call('EXPIRE', log, TTL)
  if ARGV[3] ~= '' then
    for _, entry in ipairs(call('XREVRANGE', log, '1-' .. ARGV[3], '-', 'COUNT', ARGV[4])) do
      if not stamp_of(entry) then break end
      reply[#reply + 1] = string.sub(entry[1], 3)
      reply[#reply + 1] = body_of(entry)
    end
  end
end
return reply
