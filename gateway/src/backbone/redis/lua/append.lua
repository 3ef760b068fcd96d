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
-- if a redo's answer doesn't hold any more; a text if it failed. A single event fails with the call.
-- Lua looks globals up by name each time.
local KEYS, ARGV, call, try, match, sub = KEYS, ARGV, redis.call, redis.pcall, string.match, string.sub
local keys, mark = #KEYS, ARGV[4]
local replies = {}
-- The next event, where its arguments begin, and the body of the one before.
local event, at, body = 1, 6, nil
-- From here on every event takes the rare way: an earlier one of the same user may wait for its counts.
local is_rare = ARGV[2] == '1' or ARGV[3] == '1'
local rare

-- An entry bears this server's time of the append, not the event's time of commit: a redo may append an old event behind
-- a young one, and the search of the next redo must not take that for the end of what is young. (Unless the store's clock
-- is ahead: then the youngest commit's.)
local time = call('TIME')
local now_text = time[1] .. sub('00' .. math.floor(time[2] / 1000), -3)
local stamp = tonumber(ARGV[5]) > tonumber(now_text) and ARGV[5] or now_text

-- Appends the event as most are; gives nothing, with nothing done, if it is another.
local function append(log, counts, first, kind)
  local line, kept, count, total, had, is_moved = '', '', nil, nil, nil, false
  if kind == 'c' then
    local known
    if mark == '' then
      known = try('HMGET', counts, ARGV[first + 4], 'total')
    else
      known = try('HMGET', counts, ARGV[first + 4], 'total', mark)
    end
    had, total = known[1], known[2]
    if not had or not total or known[3] then return nil end
    local last, seen = match(had, '^(%d+) (%d+)$')
    if not last then return nil end
    local l, s = last + 0, seen + 0
    local unread_before = l > s and l - s or 0
    if ARGV[first + 5] + 0 > l then last, l = ARGV[first + 5], ARGV[first + 5] + 0 end
    if ARGV[first + 6] + 0 > s then seen, s = ARGV[first + 6], ARGV[first + 6] + 0 end
    local unread = l > s and l - s or 0
    if unread ~= unread_before then
      -- As a text: Redis may write a large number with an exponent.
      total = (total + unread - unread_before) .. ''
      is_moved = true
    end
    count = last .. ' ' .. seen
    if ARGV[first + 7] ~= '' then
      line, kept = unread_line(ARGV[first + 7], unread, total), unread .. ' ' .. total .. ' ' .. ARGV[first + 7]
    end
  elseif mark ~= '' and try('HEXISTS', counts, mark) ~= 0 then
    return nil
  end

  -- Lua hashes every byte of every string that it makes, so the body stays as it came: an entry lacks the body's first
  -- character, and what differs in the line that was made here is a part of its own (body_of puts them together).
  local id
  if kept == '' then
    id = try('XADD', log, 'NOMKSTREAM', '1-*', 'i', stamp .. ARGV[first + 1], 'd', body)
  else
    id = try('XADD', log, 'NOMKSTREAM', '1-*', 'i', stamp .. ARGV[first + 1], 'd', body, 'u', kept)
  end
  if not id or id.err then return nil end
  local seq = sub(id, 3)
  -- Nothing that could fail stands between the append and this.
  local receivers = call(PUBLISH, ARGV[first], '{"seq":' .. seq .. ',' .. body .. line)
  if is_moved then
    call('HSET', counts, ARGV[first + 4], count, 'total', total)
  elseif count ~= had then
    call('HSET', counts, ARGV[first + 4], count)
  end
  if sub(seq, -2) == '00' then
    rare = rare or rarely()
    rare.trim(log, seq, now_text)
  end
  return receivers
end

local function append_all()
  while 2 * event <= keys do
    local this, first = event, at
    local kind = ARGV[first + 3]
    event, at = this + 1, first + (kind == '' and 4 or kind == 'c' and 8 or 10)
    if ARGV[first + 2] ~= '' then body = ARGV[first + 2] end
    local log, counts = KEYS[2 * this - 1], KEYS[2 * this]
    local outcome = not is_rare and kind ~= 'r' and append(log, counts, first, kind)
    if not outcome then
      rare = rare or rarely()
      outcome = rare.append(log, counts, first, kind, body, stamp)
      is_rare = is_rare or outcome == -1
    end
    replies[this] = outcome
  end
end

if keys == 2 then
  append_all()
  return replies
end
repeat
  local is_done, fault = pcall(append_all)
  -- One user's damaged keys must not take the others' events along.
  if not is_done then replies[event - 1] = tostring(type(fault) == 'table' and fault.err or fault) end
until is_done
return replies
