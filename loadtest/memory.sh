#!/usr/bin/env bash
# What a user's log takes of Redis' memory:
#
#   loadtest/memory.sh [--short] [--users N] [--messages N] [--hour SECONDS]
#
# A node, Redis (set as deploy/README.md says) and PostgreSQL run on free loopback ports in a temporary directory. A hundred
# users send to USERS others (10000), who stay connected and get MESSAGES messages of 200 bytes each (10) in an hour. An hour
# takes RESUME_SECONDS, which --hour sets (300): a log keeps what is younger. The load takes an hour and four tenths, so that
# every log has been trimmed in the end. The table tells the memory of the listeners' logs and of everything that Redis holds
# for a user.
#
# The run fails if a log takes more than 10 KB on the average. It fails if an event in a log is older than RESUME_SECONDS and a
# tenth, beside the last one before these, from which a client resumes (NOLOSS.md, C1). A node checks each log every 10 s. It
# fails if the oracle finds a fault.
# --short is for deploy/test.sh: few users get an hour's messages in some seconds, and no log has to be trimmed meanwhile.
#
# GATEWAY=<binary> and LOADTEST=<binary> use those instead of building. Debian packages: redis-server postgresql curl.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=deploy/services.sh
. "$root/deploy/services.sh"

users=10000
messages=10
hour=300
speakers=100
readonly LOG_BYTES_MAX=10000

main() {
  arguments "$@"
  begin 'redis-server postgresql curl' redis-server redis-cli curl
  local seconds=$((hour * 14 / 10)) rate before after status=0
  rate=$(((users * messages + hour - 1) / hour))
  ! $short || { rate=$((users * messages / 6)) seconds=6; }
  start_postgres fsync=off
  start_redis
  local redis_port=${redis_url##*:}
  gateway_up node RESUME_SECONDS="$hour"
  before=$(used_memory)
  start oracle "$driver" oracle --url "ws://127.0.0.1:$http_port" --http "http://127.0.0.1:$http_port" \
    --user-prefix user- --users $((speakers + users)) --speakers "$speakers" --rate "$rate" --seconds "$seconds" --settle-seconds 60 \
    --content-bytes 200 --token-seconds 86400
  # Each conversation was opened by a message. All are still connected when the last one is stored.
  wait_for $((60 + users / rate + seconds * 2)) oracle is_stored $((users + rate * seconds))
  after=$(used_memory)
  local oracle=$started
  judge_logs || status=1
  printf '| everything, for each user | %s bytes |\n' $(((after - before) / (speakers + users)))
  wait "$oracle" || { status=1; tail -n 30 "$work/oracle.log"; }
  forget "$oracle"
  if [ "$status" = 0 ]; then echo 'memory: passed'; else echo 'memory: FAILED'; fi
  return "$status"
}

short=false
arguments() {
  while [ $# -gt 0 ]; do
    case $1 in
      --short) short=true users=100 hour=60 speakers=10 ;;
      --users | --messages | --hour) take_number "$@"; shift ;;
      -h | --help) show_help ;;
      *) die "unknown argument $1" 'see --help' ;;
    esac
    shift
  done
  [ "$hour" -ge 60 ] || die 'an hour has 60 seconds at least' 'RESUME_SECONDS is 60 or more'
}

used_memory() { redis-cli -p "$redis_port" INFO memory | tr -d '\r' | sed -n 's/^used_memory://p'; }

is_stored() { [ "$(sql 'SELECT coalesce(sum(last_seq), 0) FROM conversations')" -ge "$1" ]; }

# The table of the listeners' logs; fails if one is too old or all are too long.
judge_logs() {
  local row logs bytes longest events oldest oldest_max
  row=$(redis-cli -p "$redis_port" --raw EVAL '
    local logs, bytes, longest, events, oldest = 0, 0, 0, 0, 0
    local time = redis.call("TIME")
    local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
    for user = tonumber(ARGV[1]), tonumber(ARGV[1]) + tonumber(ARGV[2]) - 1 do
      local log = "chat:log:{chat:user:user-" .. user .. "}"
      local taken = redis.call("MEMORY", "USAGE", log, "SAMPLES", "0")
      if taken then
        logs, bytes, longest = logs + 1, bytes + taken, math.max(longest, taken)
        events = events + redis.call("XLEN", log)
        -- The first one may be the last that is too old.
        local second = redis.call("XRANGE", log, "-", "+", "COUNT", "2")[2]
        if second then oldest = math.max(oldest, now - tonumber(string.match(second[2][2], "^%d+"))) end
      end
    end
    return string.format("%d %d %d %d %d", logs, bytes, longest, events, oldest)' 0 "$speakers" "$users")
  read -r logs bytes longest events oldest <<<"$row"
  [ "$logs" = "$users" ] || { echo "$logs of $users users have a log"; return 1; }
  oldest_max=$((hour * 1100))
  printf '| %s users, %s messages in an hour of %s s | |\n|---|---|\n' "$users" "$messages" "$hour"
  printf '| a log, on the average | %s bytes |\n' $((bytes / logs))
  printf '| the largest log | %s bytes |\n' "$longest"
  printf '| events in a log, on the average | %s.%s |\n' $((events / logs)) $((events * 10 / logs % 10))
  printf '| the oldest event | %s s; an hour and a tenth are %s s |\n' $((oldest / 1000)) $((oldest_max / 1000))
  [ $((bytes / logs)) -le "$LOG_BYTES_MAX" ] || { echo "a log takes more than $LOG_BYTES_MAX bytes"; return 1; }
  [ "$oldest" -le "$oldest_max" ] || { echo 'a log holds what is too old'; return 1; }
}

main "$@"
