-- Appends events to logs and publishes them, one after the other.
-- KEYS: the log and the unread counts of each event's user.
-- ARGV: 1 nonce of new epochs, 2 '1' to open a log wherever there is none of this server, 3 '1' if the counts were just
-- loaded (what is still missing then has none), 4 the youngest commit ms; and for each event: channel, commit ms, ':' and its
-- id, body without its first character or '' if it is the one before, the answer of a redo, or '' for the first try ('a' and
-- the epoch that the log has to have for an append; 'r', see publish_again; 'm' for a marker), the mark that makes events of
-- later calls wait for an earlier one of the same user, or ''; conversation whose unread count moves, or '', its last seq,
-- its seen seq, '1' to announce the count.
-- Returns for each event: the receivers; -1, with nothing done, if the counts have to be loaded first; -3, with nothing done,
-- if a redo's answer doesn't hold any more; a text if it failed. A single event fails with the call.
local EVENT_ARGS = 10
-- Lua looks globals up by name each time.
local KEYS, ARGV, match, sub, format = KEYS, ARGV, string.match, string.sub, string.format
local must_open, loaded = ARGV[2] == '1', ARGV[3] == '1'
local maxlen = tostring(HOT_MAX)
-- Counts that later events of this call have to wait for.
local missing = {}
-- The body of the event before.
local last_body

-- This server's time in ms, as a text and as a number, and whether a commit is younger by the store's clock.
local now_text, now, is_store_ahead
local function ask_for_time()
  now_text = time_text()
  now = tonumber(now_text)
  is_store_ahead = tonumber(ARGV[4]) > now
end

local function subscribers(channel)
  return call('PUBSUB', NUMSUB, channel)[2]
end

-- Adds an entry. Returns its id; false if there is no log; false and true if something stands in its place that isn't ours.
local function add(how, keep, stamp, body, line)
  local id
  if line == '' then
    id = redis.pcall('XADD', log, 'NOMKSTREAM', 'MAXLEN', how, keep, '1-*', 'i', stamp, 'd', body)
  else
    id = redis.pcall('XADD', log, 'NOMKSTREAM', 'MAXLEN', how, keep, '1-*', 'i', stamp, 'd', body, 'u', line)
  end
  if type(id) ~= 'table' then return id end
  local fault = id.err
  -- Another's entry with a higher id, with the highest one ('too large', says Redis), or another type of key: no append
  -- would ever succeed.
  for _, foreign in ipairs({'equal or smaller', 'exhausted', 'too large', 'WRONGTYPE'}) do
    if string.find(fault, foreign, 1, true) then return false, true end
  end
  error(fault, 0)
end

local function append(at)
  local channel, body, redo, mark = ARGV[at], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5]
  if body == '' then body = last_body else last_body = body end
  local is_marker = redo == 'm'
  if redo ~= '' and not is_marker then
    if sub(redo, 1, 1) == 'r' then return publish_again(redo, channel, ARGV[at + 2]) end
    if sub(redo, 2) ~= epoch_here() then return -3 end
  end
  if missing[counts] or mark ~= '' and call('HEXISTS', counts, mark) == 1 then return -1 end
  local elsewhere = must_open and not epoch_here()

  local conversation, field, count, total, had = ARGV[at + 6], nil, nil, nil, nil
  local line, is_moved = '', false
  if conversation ~= '' then
    if elsewhere and not loaded then call('DEL', counts) end
    field = 'c:' .. conversation
    local known = call('HMGET', counts, field, 'total')
    had, total = known[1], known[2]
    local last, seen
    if total and had then
      last, seen = match(had, '^(%d+) (%d+)$')
    elseif total and (ARGV[at + 7] == '1' or tonumber(ARGV[at + 7]) <= tonumber(ARGV[at + 8])) then
      -- Either nothing came before, or nothing is unread afterwards.
      last, seen = '0', '0'
    end
    if last then
      local l, s, new_l, new_s = last + 0, seen + 0, ARGV[at + 7] + 0, ARGV[at + 8] + 0
      local unread_before = l > s and l - s or 0
      if new_l > l then l, last = new_l, ARGV[at + 7] end
      if new_s > s then s, seen = new_s, ARGV[at + 8] end
      local unread = l > s and l - s or 0
      if unread ~= unread_before then
        total = format('%d', total + unread - unread_before)
        is_moved = true
      end
      count = last .. ' ' .. seen
      if ARGV[at + 9] == '1' then
        line = '\n{"type":"notification.unread","payload":{"conversationId":"' .. conversation .. '","unread":' ..
          format('%d', unread) .. ',"totalUnread":' .. total .. '}}'
      end
    elseif not loaded then
      if must_open or call('EXISTS', log) == 1 or subscribers(channel) > 0 then
        missing[counts] = true
        if mark ~= '' then
          call('HSET', counts, mark, '1')
          call('EXPIRE', counts, TTL)
        end
        return -1
      end
      if total then call('DEL', counts) end
      return 0
    end
  end

  -- An entry bears this server's time of the append, not the event's time of commit: a redo may append an old event behind
  -- a young one, and the search of the next redo must not take that for the end of what is young. (Unless the store's clock
  -- is ahead: then the commit's.)
  if not now then ask_for_time() end
  local stamp = (is_store_ahead and tonumber(ARGV[at + 1]) > now and ARGV[at + 1] or now_text) .. ARGV[at + 2]

  -- Long events are counted by their bytes: no more of them stay than make up LOG_BYTES.
  local keep, how, bytes = maxlen, '~', 1 + #body + #line
  if bytes > LONG_BYTES and LOG_BYTES < bytes * HOT_MAX then
    keep, how = math.max(1, math.floor(LOG_BYTES / bytes)), '='
  end

  -- Lua hashes every byte of every string that it makes, so the body stays as it came: an entry lacks the body's first
  -- character, and the line that was made here is a part of its own (body_of puts them together).
  local id, first_line, place = false, '', body
  local log_epoch, last = nil, nil
  if is_marker then
    -- The counts that it would have moved are unknown from here on.
    call('DEL', counts)
    local _
    log_epoch, _, last = head()
    if log_epoch then place = placed(body, log_epoch, format('%.0f', last + 1)) end
  end
  local is_foreign = false
  if not elsewhere and (log_epoch or not is_marker) then
    id, is_foreign = add(how, keep, stamp, place, line)
  end
  if not id then
    if not must_open and not is_foreign and subscribers(channel) == 0 then
      -- Without a log the counts would stop moving, so they go with it.
      if count then call('DEL', counts) end
      return 0
    end
    local epoch = open_log(ARGV[1] .. 'x' .. at)
    first_line = '{"epoch":"' .. epoch .. '","seq":0}\n'
    if is_marker then place = placed(body, epoch, '1') end
    id = call('XADD', log, '1-*', 'i', stamp, 'd', place, 'u', line)
  end
  -- Nothing that could fail stands between the append and this.
  local receivers = call(PUBLISH, channel, first_line .. '{"seq":' .. sub(id, 3) .. ',' .. place .. line)
  if is_moved then
    call('HSET', counts, field, count, 'total', total)
  elseif count and count ~= had and (had or call('HLEN', counts) < READ_COUNTS) then
    call('HSET', counts, field, count)
  end
  if sub(id, -2) == '00' then trim(tonumber(sub(id, 3)), now) end
  return receivers
end

if #KEYS == 2 then return {append(5)} end
local replies = {}
for event = 1, #KEYS / 2 do
  log, counts = KEYS[2 * event - 1], KEYS[2 * event]
  local is_done, outcome = pcall(append, 5 + EVENT_ARGS * (event - 1))
  -- One user's damaged keys must not take the others' events along.
  replies[event] = is_done and outcome or tostring(type(outcome) == 'table' and outcome.err or outcome)
end
return replies
