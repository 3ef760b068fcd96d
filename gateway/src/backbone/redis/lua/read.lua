-- Reads entries after a seq. ARGV: nonce of a new epoch, seq, limit. Returns epoch, floor, last, then seq and body of each.
local epoch, floor, last = head_of_open_log(ARGV[1])
local reply = {epoch, floor, last}
for _, entry in ipairs(call('XRANGE', log, '(1-' .. ARGV[2], '+', 'COUNT', ARGV[3])) do
  reply[#reply + 1] = string.sub(entry[1], 3)
  reply[#reply + 1] = body_of(entry)
end
return reply
