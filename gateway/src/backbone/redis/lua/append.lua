-- Appends events to logs and publishes them, one after the other. An event costs XADD and PUBLISH, and nothing else. What is
-- rare stands in lua/append_rarely.lua, which is called if XADD gives no id, or if the node says so.
-- KEYS: the log of each event's user.
-- ARGV: 1 nonce of new epochs, 2 '1' to open a log wherever there is none of this server, 3 the youngest commit ms; and for
-- each event: channel, ':' and its id, body without its first character or '' if it is the one before, and what follows: ''
-- nothing; 'r' the answer of a redo, or '' ('a' and the epoch that the log has to have for an append; 'r', see
-- publish_again; 'm' for a marker), and how many events the log keeps, or ''.
-- Returns for each event: the receivers; -3, with nothing done, if a redo's answer doesn't hold any more; a text if it
-- failed: one user's damaged keys must not take others' events along.
-- It makes no function but the one for what is rare, which uses no name of this file: in Lua each costs as much as a command.
-- Lua looks globals up by name each time.
local KEYS, ARGV, try, sub = KEYS, ARGV, redis.pcall, string.sub
local replies = {}
-- Where the next event's arguments begin, and the body of the one before.
local at, body = 4, nil
local must_open = ARGV[2] == '1'
local rare

-- An entry bears this server's time of the append, not the event's time of commit: a redo may append an old event behind
-- a young one, and the search of the next redo must not take that for the end of what is young. (Unless the store's clock
-- is ahead: then the youngest commit's.)
local time = redis.call('TIME')
local now_text = time[1] .. sub('00000' .. time[2], -6, -4)
local stamp, commit = now_text, ARGV[3]
-- Texts of digits: to compare these is cheaper than to make numbers of them.
if #commit > #stamp or #commit == #stamp and commit > stamp then stamp = commit end

for event = 1, #KEYS do
  local log, channel, kind = KEYS[event], ARGV[at], ARGV[at + 3]
  if ARGV[at + 2] ~= '' then body = ARGV[at + 2] end

  -- Lua hashes every byte of every string that it makes, so the body stays as it came: an entry lacks the body's first
  -- character (body_of puts it back).
  local id, outcome = false, nil
  if kind == '' and not must_open then
    id = try('XADD', log, 'NOMKSTREAM', '1-*', 'i', stamp .. ARGV[at + 1], 'd', body)
  end
  if id and not id.err then
    local seq = sub(id, 3)
    -- Nothing stands between the append and this.
    outcome = try(PUBLISH, channel, '{"seq":' .. seq .. ',' .. body)
    if type(outcome) == 'table' then outcome = outcome.err end
    if sub(seq, -2) == '00' then
      rare = rare or rarely()
      local is_trimmed, fault = rare.trim(log, seq, now_text)
      if not is_trimmed then outcome = fault end
    end
  else
    rare = rare or rarely()
    outcome = rare.append(log, at, kind, body, stamp)
  end
  replies[event] = outcome
  at = at + (kind == '' and 4 or 6)
end
return replies
