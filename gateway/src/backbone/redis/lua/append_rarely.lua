-- The rare ways of an append: no log there, another server's, a redo, a long event, counts that are missing, an entry of
-- another program. What they are given stands in lua/append.lua.
local must_open, loaded, mark = ARGV[2] == '1', ARGV[3] == '1', ARGV[4]
local match, sub, format = string.match, string.sub, string.format
-- Counts that later events of this call have to wait for.
local missing = {}

local function subscribers(channel)
  return call('PUBSUB', NUMSUB, channel)[2]
end

-- Adds an entry. Returns its id; false if there is no log; false and true if something stands in its place that isn't ours.
local function add(keep, stamp, body, kept)
  local words = {'XADD', log, 'NOMKSTREAM'}
  local function say(...)
    for _, word in ipairs({...}) do words[#words + 1] = word end
  end
  if keep ~= '' then say('MAXLEN', '=', keep) end
  say('1-*', 'i', stamp, 'd', body)
  if kept ~= '' then say('u', kept) end
  local id = redis.pcall(unpack(words))
  if type(id) ~= 'table' then return id end
  local fault = id.err
  -- Another's entry with a higher id, with the highest one ('too large', says Redis), or another type of key: no append
  -- would ever succeed.
  for _, foreign in ipairs({'equal or smaller', 'exhausted', 'too large', 'WRONGTYPE'}) do
    if string.find(fault, foreign, 1, true) then return false, true end
  end
  error(fault, 0)
end

local function append(at, kind, body, time)
  local channel, field, redo, keep = ARGV[at], '', '', ''
  if kind ~= '' then field = ARGV[at + 4] end
  if kind == 'r' then redo, keep = ARGV[at + 8], ARGV[at + 9] end
  local is_marker = redo == 'm'
  if redo ~= '' and not is_marker then
    if sub(redo, 1, 1) == 'r' then return publish_again(redo, channel, ARGV[at + 1]) end
    if sub(redo, 2) ~= epoch_here() then return -3 end
  end
  if missing[counts] or mark ~= '' and call('HEXISTS', counts, mark) == 1 then return -1 end
  local elsewhere = must_open and not epoch_here()

  local count, total, had = nil, nil, nil
  local line, kept, is_moved = '', '', false
  if field ~= '' then
    if elsewhere and not loaded then call('DEL', counts) end
    local known = call('HMGET', counts, field, 'total')
    had, total = known[1], known[2]
    local last, seen
    if total and had then
      last, seen = match(had, '^(%d+) (%d+)$')
    elseif total and (ARGV[at + 5] == '1' or tonumber(ARGV[at + 5]) <= tonumber(ARGV[at + 6])) then
      -- Either nothing came before, or nothing is unread afterwards.
      last, seen = '0', '0'
    end
    if last then
      local l, s, new_l, new_s = last + 0, seen + 0, ARGV[at + 5] + 0, ARGV[at + 6] + 0
      local unread_before = l > s and l - s or 0
      if new_l > l then l, last = new_l, ARGV[at + 5] end
      if new_s > s then s, seen = new_s, ARGV[at + 6] end
      local unread = l > s and l - s or 0
      if unread ~= unread_before then
        total = format('%d', total + unread - unread_before)
        is_moved = true
      end
      count = last .. ' ' .. seen
      if ARGV[at + 7] ~= '' then
        line, kept = unread_line(ARGV[at + 7], unread, total), unread .. ' ' .. total .. ' ' .. ARGV[at + 7]
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

  local stamp = time .. ARGV[at + 1]
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
    id, is_foreign = add(keep, stamp, place, kept)
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
    id = call('XADD', log, '1-*', 'i', stamp, 'd', place, 'u', kept)
  end
  -- Nothing that could fail stands between the append and this.
  local receivers = call(PUBLISH, channel, first_line .. '{"seq":' .. sub(id, 3) .. ',' .. place .. line)
  if is_moved then
    call('HSET', counts, field, count, 'total', total)
  elseif count and count ~= had and (had or call('HLEN', counts) < READ_COUNTS) then
    call('HSET', counts, field, count)
  end
  if sub(id, -2) == '00' then trim(tonumber(sub(id, 3)), tonumber(time_text())) end
  return receivers
end

-- An error as a text, in place of an outcome.
local function text_of(fault)
  return tostring(type(fault) == 'table' and fault.err or fault)
end

return {
  append = function(its_log, its_counts, ...)
    log, counts = its_log, its_counts
    local is_done, outcome = pcall(append, ...)
    return is_done and outcome or text_of(outcome)
  end,
  -- Returns whether it could be done; if not, why.
  trim = function(its_log, seq, now)
    log = its_log
    local is_done, fault = pcall(trim, tonumber(seq), tonumber(now))
    return is_done, text_of(fault)
  end,
}
