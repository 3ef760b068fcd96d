-- The line that announces a count, for lua/append.lua and lua/append_rarely.lua.
local function unread_line(conversation, unread, total)
  return '\n{"type":"notification.unread","payload":{"conversationId":"' .. conversation .. '","unread":' ..
    unread .. ',"totalUnread":' .. total .. '}}'
end
