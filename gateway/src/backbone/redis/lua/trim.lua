-- Trims a log that holds more than MAXLEN entries, but not below those of the last HOT_MS, unless these are more than HOT_MAX.
-- Called after each hundredth event: Redis keeps entries by the hundred anyway.
local function trim(last, now)
  local held = call('XLEN', log)
  if held <= MAXLEN then return end
  if held > HOT_MAX then
    call('XTRIM', log, 'MAXLEN', '~', HOT_MAX)
    held = call('XLEN', log)
  end
  local function is_cold(seq)
    local entry = call('XRANGE', log, '1-' .. string.format('%.0f', seq), '+', 'COUNT', '1')[1]
    local at = entry and stamp_of(entry)
    return not at or tonumber(at) + HOT_MS <= now
  end
  local until_seq = last - MAXLEN
  if not is_cold(until_seq) then
    -- A part of it may go: twice as much as has come since the last time.
    until_seq = last - held + 200
    if until_seq >= last - MAXLEN or not is_cold(until_seq) then return end
  end
  call('XTRIM', log, 'MINID', '~', '1-' .. string.format('%.0f', until_seq + 1))
end
