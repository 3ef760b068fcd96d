-- Opens the log and renews its time to live. ARGV: nonce of a new epoch. Returns epoch, floor, last.
local epoch, floor, last = head_of_open_log(ARGV[1])
call('EXPIRE', log, TTL)
return {epoch, floor, last}
