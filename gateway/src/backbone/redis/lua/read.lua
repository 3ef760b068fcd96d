-- Reads entries after a seq. ARGV: nonce of a new epoch, seq, limit. Returns epoch, floor, last, then seq and body of each.
local epoch, floor, last = head_of_open_log(ARGV[1])
local reply = {epoch, floor, last}
for _, entry in ipairs(call('XRANGE', log, '(1-' .. ARGV[2], '+', 'COUNT', ARGV[3])) do
  reply[#reply + 1] = string.sub(entry[1], 3)
  -- An entry's body has no first character, and the line of the unread count is a part of its own (lua/append.lua).
  reply[#reply + 1] = '{' .. entry[2][4] .. (entry[2][6] or '')
end
return reply
