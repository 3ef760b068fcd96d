-- Appends an event to the log and publishes it.
-- ARGV: 1 channel, 2 <commit ms>:<event id>, 3 body, 4 nonce of a new epoch, 5 '1' to open a log wherever there is none of
-- this server, 6 the mark that makes events of one pipeline wait for an earlier one of the same user, or '';
-- and if an unread count moves: 7 conversation, 8 last seq, 9 seen seq, 10 '1' to announce it, 11 '1' if the counts were
-- just loaded (what is still missing then has none).
-- Returns the receivers; -1, with nothing done, if the counts have to be loaded first.
local channel, body, must_open, mark = ARGV[1], ARGV[3], ARGV[5] == '1', ARGV[6]
local conversation = ARGV[7]

local function subscribers()
  return redis.call('PUBSUB', NUMSUB, channel)[2]
end

if mark ~= '' and redis.call('HEXISTS', KEYS[2], mark) == 1 then return -1 end
local elsewhere = must_open and not epoch_here()
if elsewhere and conversation and ARGV[11] ~= '1' then redis.call('DEL', KEYS[2]) end

local count, total, had
if conversation then
  local known = redis.call('HMGET', KEYS[2], 'c:' .. conversation, 'total')
  had, total = known[1], known[2]
  local last, seen
  if total and had then
    last, seen = string.match(had, '^(%d+) (%d+)$')
  elseif total and ARGV[8] == '1' then
    last, seen = '0', '0'
  end
  if last then
    local l, s, new_l, new_s = tonumber(last), tonumber(seen), tonumber(ARGV[8]), tonumber(ARGV[9])
    local unread_before = l > s and l - s or 0
    if new_l > l then l, last = new_l, ARGV[8] end
    if new_s > s then s, seen = new_s, ARGV[9] end
    local unread = l > s and l - s or 0
    total = string.format('%.0f', tonumber(total) + unread - unread_before)
    count = last .. ' ' .. seen
    if ARGV[10] == '1' then
      body = body .. '\n{"type":"notification.unread","payload":{"conversationId":"' .. conversation ..
        '","unread":' .. string.format('%.0f', unread) .. ',"totalUnread":' .. total .. '}}'
    end
  elseif ARGV[11] ~= '1' then
    if must_open or redis.call('EXISTS', log) == 1 or subscribers() > 0 then
      if mark ~= '' then
        redis.call('HSET', KEYS[2], mark, '1')
        redis.call('EXPIRE', KEYS[2], TTL)
      end
      return -1
    end
    if total then redis.call('DEL', KEYS[2]) end
    return 0
  end
end

-- An entry bears this server's time of the append, not the event's time of commit: a redo may append an old event behind a
-- young one, and the search of the next redo must not take that for the end of what is young. (Unless the store's clock is
-- ahead: then the commit's.)
local time = redis.call('TIME')
local stamp = time[1] .. string.sub('00' .. math.floor(time[2] / 1000), -3)
local committed, event = string.match(ARGV[2], '^(%d+)(:.*)$')
stamp = (tonumber(committed) > tonumber(stamp) and committed or stamp) .. event

-- Long events are counted by their bytes: no more of them stay than make up LOG_BYTES.
local keep, how = MAXLEN, '~'
if #body > LONG_BYTES and LOG_BYTES < #body * keep then
  keep, how = math.max(1, math.floor(LOG_BYTES / #body)), '='
end

local id, first_line = false, ''
if not trimmed and not elsewhere then
  id = redis.call('XADD', log, 'NOMKSTREAM', 'MAXLEN', how, keep, '1-*', 'i', stamp, 'd', body)
  if not id and not must_open and subscribers() == 0 then
    -- Without a log the counts would stop moving, so they go with it.
    if count then redis.call('DEL', KEYS[2]) end
    return 0
  end
end
if not id then
  first_line = '{"epoch":"' .. open_log(ARGV[4]) .. '","seq":0' .. (trimmed and ',"reason":"trimmed"' or '') .. '}\n'
  id = redis.call('XADD', log, '1-*', 'i', stamp, 'd', body)
end
-- Nothing that could fail stands between the append and this.
local receivers = redis.call(PUBLISH, channel, first_line .. '{"seq":' .. string.sub(id, 3) .. ',' .. string.sub(body, 2))
if count and count ~= had then redis.call('HSET', KEYS[2], 'c:' .. conversation, count, 'total', total) end
return receivers
