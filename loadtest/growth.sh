#!/usr/bin/env bash
# Whether a message costs the same however large everything is: one node, a Redis and a PostgreSQL of their own, and tables
# in Markdown on standard output (what the driver says goes to standard error):
#
#   loadtest/growth.sh [--short]
#
# CPU per message by the number of connections, at one rate; CPU per delivery by the size of a group, at 5,000
# deliveries a second at the most; CPU per message of a conversation with a million stored messages (filled by SQL) and of fresh ones;
# memory over ten storms of connects. --short: a hundredth of everything, to see that it works. GATEWAY and LOADTEST name
# binaries instead of building them.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
PATH=$PATH:/usr/sbin
# shellcheck source=deploy/services.sh
. deploy/services.sh

connections=(100 1000 10000 18000) rate=2000 seconds=10
sizes=(2 10 100 1000 10000) messages=(2000 2000 500 50 5) intervals_ms=(5 5 20 200 2000)
pair_rate=200 stored=1000000 storms=10 storm=10000
incomplete=() short=''
case ${1:-} in
  '') ;;
  --short)
    connections=(10 100) rate=200 seconds=2
    sizes=(2 10 100) messages=(200 100 20) intervals_ms=(5 10 50)
    pair_rate=50 stored=10000 storms=3 storm=100 short=yes
    ;;
  *) die "\"$1\" is unknown" 'usage: loadtest/growth.sh [--short]' ;;
esac

main() {
  trap stop_all EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  find_gateway_and_driver
  make_work_dir
  export JWT_SECRET API_KEY
  JWT_SECRET=$(random_secret) API_KEY=$(random_secret)
  start_postgres "${pg_measured[@]}"
  by_connections
  by_group_size
  by_stored_messages
  by_storms
  [ ${#incomplete[@]} = 0 ] || printf 'not everything arrived: %s\n' "${incomplete[@]}" >&2
  # At full load that is a result, which the tables show.
  [ -z "$short" ] || [ ${#incomplete[@]} = 0 ]
}

# Its Redis, its node and its database: for each row anew, so that nothing of one shows in another.
up() {
  new_database "growth_$RANDOM$RANDOM"
  wear_in_postgres
  start_redis
  redis=$started
  gateway_up gateway COMMANDS_PER_SECOND=0 USER_COMMANDS_PER_SECOND=0 MAX_CONNECTIONS=18500 DRAIN_DELAY_SECONDS=0 \
    DRAIN_SECONDS=1
  node=$started url=ws://127.0.0.1:$http_port http=http://127.0.0.1:$http_port
}

down() {
  stop "$node"
  stop "$redis"
}

# measure MODE OPTION…: the driver's result is in $work/found.json.
measure() {
  rm -f "$work/found.json"
  run timeout --kill-after=5 300 "$driver" "$@" --url "$url" --pid "$node" --pid "$redis" --json "$work/found.json" >&2 ||
    incomplete+=("$*")
  [ -e "$work/found.json" ] || die "$1 could not be measured" 'what the driver says stands above'
}

# warm_up MODE OPTION…: the same load for a moment before: conversations are open, unread counts loaded, and PostgreSQL knows
# its tables.
warm_up() {
  run timeout --kill-after=5 300 "$driver" "$@" --url "$url" >&2 || incomplete+=("before: $*")
  analyze_database
}

# heading TITLE COLUMN…
heading() {
  local title=$1
  shift
  printf '\n%s\n\n|' "$title"
  printf ' %s |' "$@"
  printf '\n|'
  printf -- '---|%.0s' "$@"
  printf '\n'
}

# row KIND FIRST MORE…: a row of the table, with what the last run gives of this kind between the first cell and more.
row() {
  python3 - "$work/found.json" "$@" <<'P'
import json, sys

path, kind, first, *more = sys.argv[1:]
found = json.load(open(path))
if kind == "messages":
    cells = [f"{found['delivered']:,} of {found['sent']:,}", f"{found['cpu_seconds_per_million']:.0f}",
             f"{found['store_cpu_seconds_per_million']:.0f}",
             f"{found['delivery_ms']['p50']:.1f} / {found['delivery_ms']['p99']:.1f}"]
elif kind == "group":
    cells = [f"{found['delivered']:,} of {found['due']:,}",
             f"{found['cpu_seconds']['total'] * 1e6 / max(found['delivered'], 1):.1f}",
             f"{found['store_cpu_seconds'] * 1e6 / max(found['messages'], 1):.0f}", f"{found['last_delivery_ms']['p50']:.1f}"]
elif kind == "storm":
    cells = [f"{found['connects_per_second']:,.0f}"]
print("|", " | ".join([first, *cells, *more]), "|")
P
}

message_columns=(delivered 'core-us a message (node, Redis)' "PostgreSQL's" 'p50 / p99 ms')

by_connections() {
  local count
  heading "By connections, $rate messages a second:" connections "${message_columns[@]}"
  for count in "${connections[@]}"; do
    up
    warm_up user-to-user --users "$count" --rate "$rate" --seconds 2
    measure user-to-user --users "$count" --rate "$rate" --seconds "$seconds" --store-pid "$pg_pid"
    row messages "$(thousands "$count")"
    down
  done
}

by_group_size() {
  local at
  heading 'By the size of a group, one member sending:' 'members (messages a second)' delivered \
    'core-us a delivery (node, Redis)' "PostgreSQL's core-us a message" 'last delivery, p50 ms'
  for at in "${!sizes[@]}"; do
    up
    warm_up group --members "${sizes[at]}" --messages 1 --http "$http" --api-key "$API_KEY"
    measure group --members "${sizes[at]}" --messages "${messages[at]}" --interval-ms "${intervals_ms[at]}" --http "$http" \
      --api-key "$API_KEY" --store-pid "$pg_pid"
    row group "$(thousands "${sizes[at]}") ($(awk -v ms="${intervals_ms[at]}" 'BEGIN { print 1000 / ms }'))"
    down
  done
}

by_stored_messages() {
  heading "By what a conversation holds, two users, $pair_rate messages a second:" conversation "${message_columns[@]}" \
    'newest page, ms' 'page in the middle, ms'
  up
  two_users u fresh 0
  fill
  two_users v "fresh, beside one of $(thousands "$stored")" 0
  two_users u "$(thousands "$stored") messages" $((stored / 2))
  down
}

# two_users PREFIX NAME SEQ: a row for their direct conversation, with a page of its history before SEQ.
two_users() {
  local page
  warm_up user-to-user --users 2 --user-prefix "$1" --rate "$pair_rate" --seconds 2
  measure user-to-user --users 2 --user-prefix "$1" --rate "$pair_rate" --seconds "$seconds" --store-pid "$pg_pid"
  page=/api/v1/conversations/$(sql "SELECT id FROM conversations WHERE pair_key = '${1}0/${1}1'")/messages
  row messages "$2" "$(page_ms "$1" "$page")" "$(page_ms "$1" "$page?before=$(($3 + 100))")"
}

# The median of nine requests.
page_ms() {
  local _
  for _ in {1..9}; do
    curl -sf -o /dev/null -m 10 -w '%{time_total}\n' -H "X-API-Key: $API_KEY" -H "X-User-Id: ${1}0" "$http$2" ||
      die "$2 can't be read" 'is the path right?'
  done | sort -n | awk 'NR == 5 { printf "%.1f", $1 * 1000 }'
}

# Puts messages into the first conversation as if its users had sent them.
fill() {
  sql "WITH c AS (SELECT id, last_seq, rev FROM conversations WHERE pair_key = 'u0/u1')
    INSERT INTO messages (id, conversation_id, seq, rev, sender_id, temp_id, kind, content, created_at)
    SELECT 1000000000000 + n, c.id, c.last_seq + n, c.rev + n, 'u0', 'fill-' || n, 'text', repeat('x', 200), clock_timestamp()
    FROM c, generate_series(1, $stored) n" >&2
  sql "UPDATE conversations SET last_seq = last_seq + $stored, rev = rev + $stored WHERE pair_key = 'u0/u1'" >&2
  # Not to be done by the server while it is measured.
  sql 'VACUUM ANALYZE messages' >&2
  sql CHECKPOINT >&2
}

sql() { as_postgres "$pg_bin/psql" -qAtX -v ON_ERROR_STOP=1 "$database" -c "$1"; }

by_storms() {
  local number
  heading "Memory over storms of $(thousands "$storm") connects, 6 s after each:" storms 'connects a second' 'node, KB' 'Redis, KB'
  up
  echo "| 0 | | $(rss "$node") | $(rss "$redis") |"
  for ((number = 1; number <= storms; number++)); do
    measure storm --connections "$storm"
    sleep 6 # Until what is free has been given back.
    row storm "$number" "$(rss "$node")" "$(rss "$redis")"
  done
  down
}

thousands() { sed -E ':more; s/([0-9])([0-9]{3})($|,)/\1,\2\3/; t more' <<<"$1"; }

rss() { awk '/^VmRSS:/ { print $2 }' "/proc/$1/status"; }

main
