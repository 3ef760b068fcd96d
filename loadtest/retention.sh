#!/usr/bin/env bash
# What others get while a million old messages are deleted:
#
#   loadtest/retention.sh [--seconds N] [--messages N]
#
# Two nodes, Redis and PostgreSQL run on free loopback ports in a temporary directory. SQL fills in a hundred channels with a
# million messages that are older than the retention. `loadtest user-to-user` sends 200 messages a second between 200 users who
# know each other: once without retention, then while the nodes delete (MESSAGE_RETENTION_DAYS=30). A line for each tells p50
# and p99 from the due time to the acknowledgement and to the delivery; the last one tells how long the deletion took. It fails
# if a message was not acknowledged or not delivered, if the retention doesn't end, or if a p99 beside it is more than twice
# that without it and 20 ms.
#
# GATEWAY=<binary> and LOADTEST=<binary> use those instead of building. Debian packages: redis-server postgresql curl python3.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=deploy/services.sh
. "$root/deploy/services.sh"

channels=100
messages=1000000
seconds=60
# The retention may take so long, in seconds: some 2,000 steps of 500 messages, with pauses.
readonly RETENTION_SECONDS_MAX=1800

main() {
  arguments "$@"
  begin 'redis-server postgresql curl python3' redis-server curl python3
  start_postgres fsync=on synchronous_commit=on "${pg_measured[@]}"
  new_database retention
  wear_in_postgres
  start_redis
  printf '%-24s %8s %9s %9s %14s %14s\n' '' sent acked delivered 'ack p50/p99' 'delivery'
  nodes 0
  fill
  load warm-up 5
  load without "$seconds"
  stop_nodes
  nodes 30
  # The lease of the node that did the upkeep before runs out within 30 s.
  until_old_are_fewer_than "$messages" 60
  begun=$SECONDS
  load with "$seconds"
  local left
  left=$(old)
  until_old_are_fewer_than 1 "$RETENTION_SECONDS_MAX"
  echo "$messages old messages were deleted within $((SECONDS - begun)) s, $((messages - left)) of them beside the load"
  verdict
}

arguments() {
  while [ $# -gt 0 ]; do
    case $1 in
      --seconds | --messages) take_number "$@"; shift ;;
      -h | --help) show_help ;;
      *) die "unknown argument $1" 'see --help' ;;
    esac
    shift
  done
  [ "$messages" -ge "$channels" ] || die "\"$messages\" messages are too few" "give $channels or more"
}

# nodes DAYS: two of them, which keep messages for so many days.
nodes() {
  local node
  node_pids=()
  urls=()
  for node in a b; do
    gateway_up "node-$node-$1" MESSAGE_RETENTION_DAYS="$1" DRAIN_DELAY_SECONDS=0 DRAIN_SECONDS=1
    node_pids+=("$started")
    urls+=(--url "ws://127.0.0.1:$http_port")
  done
}

stop_nodes() {
  local node
  for node in "${node_pids[@]}"; do stop "$node" 60; done
}

# Channels of other users, whose messages are forty days old.
fill() {
  local each=$((messages / channels))
  messages=$((each * channels))
  sql "INSERT INTO conversations (id, kind, visibility, last_seq, rev, member_count, created_at, last_activity)
    SELECT 'old' || c, 'channel', 'public', $each, $each, 1, now() - interval '41 days', now() - interval '40 days'
    FROM generate_series(1, $channels) c"
  sql "INSERT INTO members (conversation_id, user_id, role, state)
    SELECT 'old' || c, 'writer', 'owner', 'accepted' FROM generate_series(1, $channels) c"
  sql "INSERT INTO messages (id, conversation_id, seq, rev, sender_id, temp_id, kind, content, created_at)
    SELECT 1000000000000 + (c - 1) * $each + n, 'old' || c, n, n, 'writer', 'fill-' || c || '-' || n, 'text', repeat('x', 200),
      now() - interval '40 days' FROM generate_series(1, $channels) c, generate_series(1, $each) n"
  # Not to be done by the server while it is measured.
  sql 'VACUUM ANALYZE messages'
  sql CHECKPOINT
}

old() { sql "SELECT count(*) FROM messages WHERE conversation_id LIKE 'old%'"; }

# until_old_are_fewer_than NUMBER SECONDS
until_old_are_fewer_than() {
  local end=$((SECONDS + $2))
  until [ "$(old)" -lt "$1" ]; do
    [ "$SECONDS" -lt "$end" ] || die "$(old) old messages are left" "see $work/node-a-30.log"
    sleep 1
  done
}

# load NAME SECONDS
load() {
  run timeout --kill-after=5 $(($2 + 120)) "$driver" user-to-user "${urls[@]}" --users 200 --rate 200 --seconds "$2" \
    --drain-seconds 30 --json "$work/$1.json" >"$work/driver-$1.log" 2>&1 || true
  [ -s "$work/$1.json" ] || die "the driver gave no result ($1)" "see $work/driver-$1.log"
  [ "$1" = warm-up ] || python3 -B - "$1" "$work/$1.json" <<'PYTHON'
import json, sys
with open(sys.argv[2], encoding="utf-8") as file:
    of = json.load(file)
show = lambda times: f"{times['p50']:.1f}/{times['p99']:.0f}"
print(f"{sys.argv[1] + ' retention':<24} {of['sent']:>8} {of['acked']:>9} {of['delivered']:>9} {show(of['ack_ms']):>14}"
      f" {show(of['delivery_ms']):>14}", flush=True)
PYTHON
}

verdict() {
  python3 -B - "$work/without.json" "$work/with.json" <<'PYTHON'
import json, sys
without, beside = (json.load(open(path, encoding="utf-8")) for path in sys.argv[1:])
faults = [name for name, of in (("without", without), ("with", beside)) if min(of["acked"], of["delivered"]) < of["sent"]]
faults += [times for times in ("ack_ms", "delivery_ms") if beside[times]["p99"] > 2 * without[times]["p99"] + 20]
sys.exit(f"FAILED: {', '.join(faults)}" if faults else 0)
PYTHON
}

main "$@"
