-- The line that announces a count. An entry of a log has only what differs from one such line to the next.
local function unread_line(conversation, unread, total)
  return '\n{"type":"notification.unread","payload":{"conversationId":"' .. conversation .. '","unread":' ..
    unread .. ',"totalUnread":' .. total .. '}}'
end
