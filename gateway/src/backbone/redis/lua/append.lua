-- Appends events to logs and publishes them, one after the other. An event costs XADD and PUBLISH; one that moves an unread
-- count HMGET before and HSET behind them. Everything else stands in lua/append_rarely.lua, which is called if XADD gives no
-- id, if a count is missing, or if the node says so.
-- KEYS: the log and the unread counts of each event's user.
-- ARGV: 1 nonce of new epochs, 2 '1' to open a log wherever there is none of this server, 3 '1' if the counts were just
-- loaded (what is still missing then has none), 4 the mark that makes events of later calls wait for an earlier one of the
-- same user, or '', 5 the youngest commit ms; and for each event: channel, ':' and its id, body without its first character
-- or '' if it is the one before, and what follows: '' nothing; 'c' a count: its field, last seq, seen seq, the conversation
-- whose count is announced, or ''; 'r' the same (the field may be ''), then the answer of a redo, or '' ('a' and the epoch
-- that the log has to have for an append; 'r', see publish_again; 'm' for a marker), and how many events the log keeps, or ''.
-- Returns for each event: the receivers; -1, with nothing done, if the counts have to be loaded first; -3, with nothing done,
-- if a redo's answer doesn't hold any more; a text if it failed: one user's damaged keys must not take others' events along.
-- It makes no function but the one for what is rare, which uses no name of this file: in Lua each costs as much as a command.
-- Lua looks globals up by name each time.
local KEYS, ARGV, try, match, sub = KEYS, ARGV, redis.pcall, string.match, string.sub
local mark = ARGV[4]
local replies = {}
-- Where the next event's arguments begin, and the body of the one before.
local at, body = 6, nil
-- From here on every event takes the rare way: an earlier one of the same user may wait for its counts.
local is_rare = ARGV[2] == '1' or ARGV[3] == '1'
local rare

-- An entry bears this server's time of the append, not the event's time of commit: a redo may append an old event behind
-- a young one, and the search of the next redo must not take that for the end of what is young. (Unless the store's clock
-- is ahead: then the youngest commit's.)
local time = redis.call('TIME')
local now_text = time[1] .. sub('00000' .. time[2], -6, -4)
local stamp, commit = now_text, ARGV[5]
-- Texts of digits: to compare these is cheaper than to make numbers of them.
if #commit > #stamp or #commit == #stamp and commit > stamp then stamp = commit end

for event = 1, #KEYS / 2 do
  local log, counts, channel, kind = KEYS[2 * event - 1], KEYS[2 * event], ARGV[at], ARGV[at + 3]
  if ARGV[at + 2] ~= '' then body = ARGV[at + 2] end
  local is_common = not is_rare and kind ~= 'r'

  local line, kept, count, total, had, is_moved = '', '', nil, nil, nil, false
  if is_common and kind == 'c' then
    local known
    if mark == '' then
      known = try('HMGET', counts, ARGV[at + 4], 'total')
    else
      known = try('HMGET', counts, ARGV[at + 4], 'total', mark)
    end
    had, total = known[1], tonumber(known[2])
    local last, seen = match(had or '', '^(%d+) (%d+)$')
    is_common = last and total and not known[3]
    if is_common then
      local l, s = last + 0, seen + 0
      local unread_before = l > s and l - s or 0
      local new_last, new_seen = ARGV[at + 5], ARGV[at + 6]
      if new_last ~= '0' and new_last + 0 > l then last, l = new_last, new_last + 0 end
      if new_seen ~= '0' and new_seen + 0 > s then seen, s = new_seen, new_seen + 0 end
      local unread = l > s and l - s or 0
      is_moved = unread ~= unread_before
      -- As a text: Redis may write a large number with an exponent.
      total = is_moved and (total + unread - unread_before) .. '' or known[2]
      count = last .. ' ' .. seen
      local announced = ARGV[at + 7]
      if announced ~= '' then
        unread = unread .. ''
        line, kept = unread_line(announced, unread, total), unread .. ' ' .. total .. ' ' .. announced
      end
    end
  elseif is_common and mark ~= '' then
    is_common = try('HEXISTS', counts, mark) == 0
  end

  -- Lua hashes every byte of every string that it makes, so the body stays as it came: an entry lacks the body's first
  -- character, and what differs in the line that was made here is a part of its own (body_of puts them together).
  local id, outcome = false, nil
  if is_common and kept == '' then
    id = try('XADD', log, 'NOMKSTREAM', '1-*', 'i', stamp .. ARGV[at + 1], 'd', body)
  elseif is_common then
    id = try('XADD', log, 'NOMKSTREAM', '1-*', 'i', stamp .. ARGV[at + 1], 'd', body, 'u', kept)
  end
  if id and not id.err then
    local seq = sub(id, 3)
    -- Nothing stands between the append and this.
    outcome = try(PUBLISH, channel, '{"seq":' .. seq .. ',' .. body .. line)
    local done = outcome
    if is_moved then
      done = try('HSET', counts, ARGV[at + 4], count, 'total', total)
    elseif count ~= had then
      done = try('HSET', counts, ARGV[at + 4], count)
    end
    if type(outcome) == 'table' then outcome = outcome.err elseif type(done) == 'table' then outcome = done.err end
    if sub(seq, -2) == '00' then
      rare = rare or rarely()
      local is_trimmed, fault = rare.trim(log, seq, now_text)
      if not is_trimmed then outcome = fault end
    end
  else
    rare = rare or rarely()
    outcome = rare.append(log, counts, at, kind, body, stamp)
    is_rare = is_rare or outcome == -1
  end
  replies[event] = outcome
  at = at + (kind == '' and 4 or kind == 'c' and 8 or 10)
end
return replies
