-- Reads entries after a seq. ARGV: nonce of a new epoch, seq, limit. Returns epoch, floor, last, then seq and body of each.
-- An entry that another program wrote is left out, so it is a hole like one that was deleted.
local epoch, floor, last = head_of_open_log(ARGV[1])
local reply = {epoch, forget_old(floor, last), last}
local after = '(1-' .. ARGV[2]
repeat
  local page = call('XRANGE', log, after, '+', 'COUNT', ARGV[3])
  for _, entry in ipairs(page) do
    local body = body_of(entry)
    if body then
      reply[#reply + 1] = string.sub(entry[1], 3)
      reply[#reply + 1] = body
    end
    after = '(' .. entry[1]
  end
-- A page without a single entry of ours would look like the end of the log.
until #reply > 3 or #page < tonumber(ARGV[3]) or #page == 0
return reply
