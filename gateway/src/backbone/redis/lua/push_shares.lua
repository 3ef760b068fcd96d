-- Push jobs: the counts of those that wait, 'n' in all, 'c:<conversation>' and 's:<sender>'.
-- KEYS: 1 the stream, 2 the hash of these counts.
local stream, shares = KEYS[1], KEYS[2]

-- Another program may have put anything there: what is no count is forgotten.
if type(redis.pcall('HLEN', shares)) ~= 'number' then redis.call('DEL', shares) end

local function count(name, by)
  local left = redis.pcall('HINCRBY', shares, name, by)
  if type(left) ~= 'number' or left <= 0 then redis.call('HDEL', shares, name) end
end

-- A job has gone.
local function uncount(fields)
  count('n', -1)
  for at = 1, #fields, 2 do
    if fields[at] == 'conversation' then count('c:' .. fields[at + 1], -1) end
    if fields[at] == 'sender' then count('s:' .. fields[at + 1], -1) end
  end
end

