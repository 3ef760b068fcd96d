#!/usr/bin/env bash
# What the events webhook costs, in one run with it off and on by turns:
#
#   loadtest/webhook.sh [--seconds N] [--rate N] [--users N] [--rounds N]
#
# A node, Redis and PostgreSQL run on free loopback ports in a temporary directory. `loadtest user-to-user` sends RATE messages a
# second between USERS users: in each round against a node without EVENTS_WEBHOOK_URL, and against one that posts to a receiver
# on the same machine (loadtest/receiver.py, whose CPU isn't counted). A line for each tells the CPU of the node and of
# PostgreSQL for a million messages, p50 and p99 to the acknowledgement, and how long the last event took after the load. The
# last lines are the means. It fails if a message was not acknowledged or delivered, or if what came over the webhook is not
# what is stored.
#
# GATEWAY=<binary> and LOADTEST=<binary> use those instead of building. Debian packages: redis-server postgresql curl python3.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=deploy/services.sh
. "$root/deploy/services.sh"

seconds=30
rate=500
users=200
rounds=2
# So long the last events may take, in seconds.
readonly DELIVERED_SECONDS_MAX=60

main() {
  arguments "$@"
  begin 'redis-server postgresql curl python3' redis-server curl python3
  export WEBHOOK_SECRET
  WEBHOOK_SECRET=$(random_secret)
  start_postgres fsync=on synchronous_commit=on "${pg_measured[@]}"
  wear_in_postgres
  printf '%-12s %8s %16s %16s %14s %10s\n' webhook acked 'node, s/million' 'store, s/million' 'ack p50/p99' 'behind, s'
  measure 0 off 5 >/dev/null
  local round
  for ((round = 1; round <= rounds; round++)); do
    measure "$round" off "$seconds"
    measure "$round" on "$seconds"
  done
  means
}

arguments() {
  while [ $# -gt 0 ]; do
    case $1 in
      --seconds | --rate | --users | --rounds) take_number "$@"; shift ;;
      -h | --help) show_help ;;
      *) die "unknown argument $1" 'see --help' ;;
    esac
    shift
  done
}

# measure ROUND off|on SECONDS: a node, a Redis and a database of its own.
measure() {
  local name=$2-$1 settings=() receiver='' port behind=- begun
  new_database "$name"
  start_redis
  local redis=$started
  if [ "$2" = on ]; then
    port=$(free_port)
    start "receiver-$name" python3 -B "$root/loadtest/receiver.py" listen "$port" "$work/$name.events"
    receiver=$started
    wait_for 20 "receiver-$name" answers 204 "http://127.0.0.1:$port/"
    settings=(EVENTS_WEBHOOK_URL="http://127.0.0.1:$port/events")
  fi
  gateway_up "node-$name" DRAIN_DELAY_SECONDS=0 DRAIN_SECONDS=1 ${settings[@]+"${settings[@]}"}
  local node=$started
  run timeout --kill-after=5 $(($3 + 120)) "$driver" user-to-user --url "ws://127.0.0.1:$http_port" --users "$users" \
    --rate "$rate" --seconds "$3" --drain-seconds 30 --pid "$node" --store-pid "$pg_pid" --json "$work/$name.json" \
    >"$work/driver-$name.log" 2>&1 || true
  [ -s "$work/$name.json" ] || die "the driver gave no result ($name)" "see $work/driver-$name.log"
  if [ "$2" = on ]; then
    begun=$SECONDS
    until [ "$(sql 'SELECT count(*) FROM webhook_events WHERE delivered_at IS NULL')" = 0 ]; do
      [ $((SECONDS - begun)) -lt "$DELIVERED_SECONDS_MAX" ] || die 'events are still owed' "see $work/node-$name.log"
      sleep 0.1
    done
    behind=$((SECONDS - begun))
    sql 'SELECT id, conversation_id FROM messages' >"$work/$name.stored"
    python3 -B "$root/loadtest/receiver.py" judge "$work/$name.events" <"$work/$name.stored" >"$work/$name.verdict" ||
      die 'what came over the webhook is not what is stored' "$(cat "$work/$name.verdict")"
  else
    [ "$(sql 'SELECT count(*) FROM webhook_events')" = 0 ] || die 'events are owed without a webhook'
  fi
  python3 -B - "$2" "$work/$name.json" "$behind" <<'PYTHON'
import json, sys
of = json.load(open(sys.argv[2], encoding="utf-8"))
print(f"{sys.argv[1]:<12} {of['acked']:>8} {of['cpu_seconds_per_million']:>16.0f} {of['store_cpu_seconds_per_million']:>16.0f}"
      f" {of['ack_ms']['p50']:>8.1f}/{of['ack_ms']['p99']:<5.0f} {sys.argv[3]:>10}", flush=True)
sys.exit(min(of["acked"], of["delivered"]) < of["sent"])
PYTHON
  stop "$node" 30
  stop "$redis"
  [ -z "$receiver" ] || stop "$receiver"
}

means() {
  python3 -B - "$work" "$rounds" <<'PYTHON'
import json, sys
folder, rounds = sys.argv[1], int(sys.argv[2])
def mean(name, field):
    of = [json.load(open(f"{folder}/{name}-{round}.json", encoding="utf-8")) for round in range(1, rounds + 1)]
    return sum(one[field] for one in of) / rounds
for what, field in (("node", "cpu_seconds_per_million"), ("store", "store_cpu_seconds_per_million")):
    off, on = mean("off", field), mean("on", field)
    print(f"{what}: {off:.0f} off, {on:.0f} on, {on - off:+.0f} core-seconds for a million messages ({(on / off - 1) * 100:+.0f} %)")
PYTHON
}

main "$@"
