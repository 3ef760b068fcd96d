-- Adds push jobs, each unless its conversation or its sender has its share of those that wait.
-- ARGV: 1 the most that may wait, 2 '1' if the nodes remove what is done, 3 and 4 the shares, as one part in so many of the room
-- that is left, or of all; and for each job: user ('' for all members of a large conversation), message, conversation, seq,
-- sender, mentions ('' for none).
-- Returns how many were not added.
local max, is_posted = tonumber(ARGV[1]), ARGV[2] == '1'
local of_room, of_all = tonumber(ARGV[3]), tonumber(ARGV[4])
local waiting, dropped = redis.call('XLEN', stream), 0
-- Another program has removed jobs, which were not uncounted.
if (tonumber(redis.call('HGET', shares, 'n')) or 0) > 2 * waiting + 100 then redis.call('DEL', shares) end

-- Nothing can follow an entry of another program with the highest id. That entry is no job, so it goes, and when nothing else
-- is left, the stream with it. Until then the jobs are refused, and come again.
local function add(fields)
  local id = redis.pcall('XADD', stream, '*', unpack(fields))
  if type(id) ~= 'table' then return end
  if waiting > 0 or not string.find(id.err, 'exhausted', 1, true) then error(id.err, 0) end
  redis.call('DEL', stream)
  redis.call('XADD', stream, '*', unpack(fields))
end

for at = 5, #ARGV, 6 do
  local conversation, sender = 'c:' .. ARGV[at + 2], 's:' .. ARGV[at + 4]
  local share = is_posted and math.floor(math.max(0, max - waiting) / of_room) or math.floor(max / of_all)
  local had = redis.call('HMGET', shares, conversation, sender)
  local of_conversation, of_sender = tonumber(had[1]) or 0, tonumber(had[2]) or 0
  if of_conversation > waiting or of_sender > waiting then
    -- Another program has removed jobs, or has written what is no count.
    redis.call('DEL', shares)
    of_conversation, of_sender = 0, 0
  end
  if of_conversation >= share or of_sender >= share then
    dropped = dropped + 1
  else
    if waiting >= max then
      local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
      redis.call('XDEL', stream, oldest[1])
      uncount(oldest[2])
      waiting = waiting - 1
    end
    local fields = { 'user', ARGV[at], 'message', ARGV[at + 1], 'conversation', ARGV[at + 2], 'seq', ARGV[at + 3], 'sender',
      ARGV[at + 4] }
    if ARGV[at] == '' then fields[1], fields[2] = 'large', '1' end
    if ARGV[at + 5] ~= '' then
      fields[#fields + 1] = 'mentions'
      fields[#fields + 1] = ARGV[at + 5]
    end
    add(fields)
    waiting = waiting + 1
    count('n', 1)
    count(conversation, 1)
    count(sender, 1)
  end
end
return dropped
