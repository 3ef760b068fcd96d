-- For a redo: the answer that the node gave for its event, after it had read the log (backbone/redo.rs).

-- Publishes an event again that stands in the log. ANSWER: 'r', its seq, ':' and the epoch. Returns the receivers; -3 if it
-- doesn't stand there any more.
local function publish_again(answer, channel, event)
  local seq, epoch = string.match(answer, '^r(%d+):(.+)$')
  if not seq or epoch_here() ~= epoch then return -3 end
  local entry = call('XRANGE', log, '1-' .. seq, '1-' .. seq)[1]
  local _, events = nil, nil
  if entry then _, events = stamp_of(entry) end
  if not events or not string.find(events .. ':', event .. ':', 1, true) then return -3 end
  return call(PUBLISH, channel, '{"seq":' .. seq .. ',' .. string.sub(body_of(entry), 2))
end

-- Puts the place of a marker into its body.
local MARKER = '"type":"resync","payload":{'
local function placed(body, epoch, seq)
  return MARKER .. '"reason":"trimmed","epoch":"' .. epoch .. '","seq":' .. seq .. ',' .. string.sub(body, #MARKER + 1)
end
