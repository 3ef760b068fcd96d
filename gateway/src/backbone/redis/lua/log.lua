-- The functions that every script on a user's log shares.
-- MAXLEN, HOT_MAX, HOT_MS, TTL, PUBLISH and NUMSUB are set by the lines that stand before this one.
local call = redis.call
local log = KEYS[1]

local replid
local function server()
  replid = replid or string.sub(string.match(call('INFO', 'replication'), 'master_replid:(%x+)'), 1, 8)
  return replid
end

-- This server's time in ms, as a text.
local function time_text()
  local time = call('TIME')
  return time[1] .. string.sub('00' .. math.floor(time[2] / 1000), -3)
end

-- The log's epoch, if it is one of this server; its name is that of the only consumer group.
local function epoch_here()
  local groups = redis.pcall('XINFO', 'GROUPS', log)
  if groups.err or #groups ~= 1 then return nil end
  local epoch = groups[1][2]
  -- Another program may have made a group of any name.
  local is_readable = #epoch <= 64 and not string.find(epoch, '[^%w._-]')
  if is_readable and string.sub(epoch, 1, 9) == server() .. '.' then return epoch end
  return nil
end

-- Begins an empty log under a new epoch, which names the server and the time of its beginning. Without the XSETID the first
-- seq would be 0.
local function open_log(nonce)
  local epoch = server() .. '.' .. time_text() .. '-' .. nonce
  call('DEL', log)
  call('XGROUP', 'CREATE', log, epoch, '1-0', 'MKSTREAM')
  call('XSETID', log, '1-0')
  call('EXPIRE', log, TTL)
  return epoch
end

-- The time of an entry's append, and ':' with the ids of its events; nothing for an entry that isn't ours.
local function stamp_of(entry)
  local fields = entry[2]
  if fields[1] ~= 'i' or fields[3] ~= 'd' then return nil end
  return string.match(fields[2], '^(%d+)(:.*)$')
end

-- The body of an entry of the log, which was put there without its first character (lua/append.lua). Empty for an entry that
-- isn't ours.
local function body_of(entry)
  return stamp_of(entry) and '{' .. entry[2][4] or ''
end

-- Returns the log's epoch, floor, last; nothing if the log is of another server, or wasn't written by these scripts.
local function head()
  local epoch = epoch_here()
  if not epoch then return nil end
  local info = call('XINFO', 'STREAM', log)
  local floor, last
  for at = 1, #info, 2 do
    if info[at] == 'last-generated-id' then
      last = string.match(info[at + 1], '^1%-(%d+)$')
    elseif info[at] == 'first-entry' and info[at + 1] then
      local first = string.match(info[at + 1][1], '^1%-(%d+)$')
      floor = first and string.format('%.0f', tonumber(first) - 1)
    end
  end
  if not last then return nil end
  return epoch, floor or last, last
end

-- The same, and opens the log if there is none.
local function head_of_open_log(nonce)
  local epoch, floor, last = head()
  if epoch then return epoch, floor, last end
  epoch = open_log(nonce)
  -- The log may have vanished under sockets of another node: it is notified as by an append that opens a log.
  local channel = string.match(log, '{(.*)}')
  if call('PUBSUB', NUMSUB, channel)[2] > 1 then
    call(PUBLISH, channel, '{"epoch":"' .. epoch .. '","seq":0}\n')
  end
  return epoch, '0', '0'
end
