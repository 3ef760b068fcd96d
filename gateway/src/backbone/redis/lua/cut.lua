-- Removes the entries of a log up to the last one that holds a text. If that is the newest, the whole log goes: without
-- any entry a redo could not tell that events were trimmed. KEYS: the log. ARGV: the text. Returns how many entries it
-- removed.
local call, find = redis.call, string.find
local entries = call('XRANGE', KEYS[1], '-', '+')
for at = #entries, 1, -1 do
  local fields = entries[at][2]
  for field = 2, #fields, 2 do
    if find(fields[field], ARGV[1], 1, true) then
      if at == #entries then
        call('DEL', KEYS[1])
        return at
      end
      return call('XTRIM', KEYS[1], 'MINID', entries[at + 1][1])
    end
  end
end
return 0
