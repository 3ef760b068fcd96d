-- For a redo: looks the event up in the log, from the tail in chunks of 16, down to the first entry that was appended
-- 5 s before the event's commit. A trimmed log that doesn't reach back so far proves nothing: it is begun anew.
-- The log of another server is ignored: it is deleted when the log is next opened.
local function is_known(must_open, committed, event)
  if call('EXISTS', log) == 0 or must_open and not epoch_here() then return false end
  local oldest_of_interest = tonumber(committed) - 5000
  local before = '+'
  while true do
    local page = call('XREVRANGE', log, before, '-', 'COUNT', '16')
    for _, entry in ipairs(page) do
      local at, id = string.match(entry[2][2], '^(%d+)(:.*)$')
      if id == event then return true end
      before = '(' .. entry[1]
      if at and tonumber(at) < oldest_of_interest then return false end
    end
    if #page < 16 then
      trimmed = before ~= '+' and before ~= '(1-1'
      return false
    end
  end
end
