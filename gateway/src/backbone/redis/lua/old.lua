-- Trims events that are older than the log's time to live, for a user who stays connected. The last of them stays: whoever
-- left within that time resumes from it or from a later one, and a redo sees how far back the log goes (NOLOSS.md, C1).
-- Called with every check of a log, so it waits until some are older by a twentieth. Returns the floor of what is left.
local function forget_old(floor, last)
  if last - floor < 2 then return floor end
  local function is_older(seq, age_ms, now)
    local entry = call('XRANGE', log, '1-' .. string.format('%.0f', seq), '+', 'COUNT', '1')[1]
    local at = entry and stamp_of(entry)
    return at and tonumber(at) + age_ms <= now
  end
  local ttl_ms, now = tonumber(TTL) * 1000, tonumber(time_text())
  if not is_older(floor + 2, ttl_ms * 1.05, now) then return floor end
  -- The last old one lies between these two.
  local old, young = floor + 2, last + 1
  while young - old > 1 do
    local middle = math.floor((old + young) / 2)
    if is_older(middle, ttl_ms, now) then old = middle else young = middle end
  end
  call('XTRIM', log, 'MINID', '1-' .. string.format('%.0f', old))
  return string.format('%.0f', old - 1)
end
