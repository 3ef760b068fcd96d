-- Stands before append.lua in a redo: ends with -2 if the log has the event, from the tail in chunks of 16 down to the
-- first entry that was appended 5 s before the event's commit. A trimmed log that doesn't reach back so far proves nothing: it is begun anew.
-- The log of another server is of no account: it goes when it is next opened.
if redis.call('EXISTS', log) == 1 and not (ARGV[5] == '1' and not epoch_here()) then
  local committed, event = string.match(ARGV[2], '^(%d+):(.*)$')
  local oldest_of_interest = tonumber(committed) - 5000
  local before, searching = '+', true
  while searching do
    local page = redis.call('XREVRANGE', log, before, '-', 'COUNT', '16')
    for _, entry in ipairs(page) do
      local at, id = string.match(entry[2][2], '^(%d+):(.*)$')
      if id == event then return -2 end
      before = '(' .. entry[1]
      if at and tonumber(at) < oldest_of_interest then
        searching = false
        break
      end
    end
    if searching and #page < 16 then
      searching = false
      trimmed = before ~= '+' and before ~= '(1-1'
    end
  end
end
