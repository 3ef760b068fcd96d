-- Reads which events a log has, from its end. ARGV: where to begin ('+', or '(1-' and a seq to begin before it), limit.
-- Returns nothing if there is no log of this server; else epoch, floor, last, then the seq and the stamp of each entry.
local epoch, floor, last = head()
if not epoch then return false end
local reply = {epoch, floor, last}
for _, entry in ipairs(call('XREVRANGE', log, ARGV[1], '-', 'COUNT', ARGV[2])) do
  local at, events = stamp_of(entry)
  reply[#reply + 1] = string.sub(entry[1], 3)
  reply[#reply + 1] = at and at .. events or ''
end
return reply
