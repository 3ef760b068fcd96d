-- The rare ways of an append: no log there, another server's, a redo, a long event, an entry of another program. What they
-- are given stands in lua/append.lua.
local must_open = ARGV[2] == '1'
local sub, format = string.sub, string.format

local function subscribers(channel)
  return call('PUBSUB', NUMSUB, channel)[2]
end

-- Adds an entry. Returns its id; false if there is no log; false and true if something stands in its place that isn't ours.
local function add(keep, stamp, body)
  local id
  if keep ~= '' then
    id = redis.pcall('XADD', log, 'NOMKSTREAM', 'MAXLEN', '=', keep, '1-*', 'i', stamp, 'd', body)
  else
    id = redis.pcall('XADD', log, 'NOMKSTREAM', '1-*', 'i', stamp, 'd', body)
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

local function append(at, kind, body, time)
  local channel, redo, keep = ARGV[at], '', ''
  if kind == 'r' then redo, keep = ARGV[at + 4], ARGV[at + 5] end
  local is_marker = redo == 'm'
  if redo ~= '' and not is_marker then
    if sub(redo, 1, 1) == 'r' then return publish_again(redo, channel, ARGV[at + 1]) end
    if sub(redo, 2) ~= epoch_here() then return -3 end
  end
  local elsewhere = must_open and not epoch_here()

  local stamp = time .. ARGV[at + 1]
  local id, first_line, place = false, '', body
  local log_epoch, last = nil, nil
  if is_marker then
    local _
    log_epoch, _, last = head()
    if log_epoch then place = placed(body, log_epoch, format('%.0f', last + 1)) end
  end
  local is_foreign = false
  if not elsewhere and (log_epoch or not is_marker) then
    id, is_foreign = add(keep, stamp, place)
  end
  if not id then
    if not must_open and not is_foreign and subscribers(channel) == 0 then return 0 end
    local epoch = open_log(ARGV[1] .. 'x' .. at)
    first_line = '{"epoch":"' .. epoch .. '","seq":0}\n'
    if is_marker then place = placed(body, epoch, '1') end
    id = call('XADD', log, '1-*', 'i', stamp, 'd', place)
  end
  -- Nothing that could fail stands between the append and this.
  local receivers = call(PUBLISH, channel, first_line .. '{"seq":' .. sub(id, 3) .. ',' .. place)
  if sub(id, -2) == '00' then trim(tonumber(sub(id, 3)), tonumber(time_text())) end
  return receivers
end

-- An error as a text, in place of an outcome.
local function text_of(fault)
  return tostring(type(fault) == 'table' and fault.err or fault)
end

return {
  append = function(its_log, ...)
    log = its_log
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
