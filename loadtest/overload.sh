#!/usr/bin/env bash
# A node that is asked for more than its PostgreSQL takes: what it still stores, and how soon it refuses the rest.
#
#   loadtest/overload.sh [--seconds N] [--capacity N] [--turn-ms N] [--json FOLDER] [TIMES…]
#
# PostgreSQL's processes are stopped and continued in turns, so that they take about --capacity messages a second (2000): the
# share of a turn (100 ms) in which they run is found first. Then messages come at TIMES that rate (1 3), whatever the node
# answers. Prints, for each, how many a second were acknowledged, and how long acknowledgements and refusals took.
# Needs redis-server and postgresql; GATEWAY and LOADTEST name binaries instead of building them.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
PATH=$PATH:/usr/sbin
# shellcheck source=deploy/services.sh
. deploy/services.sh

seconds=20 capacity=2000 turn_ms=100 json='' times=()
while [ $# -gt 0 ]; do
  case $1 in
    --seconds) seconds=$2; shift ;;
    --capacity) capacity=$2; shift ;;
    --turn-ms) turn_ms=$2; shift ;;
    --json) json=$2; shift ;;
    *[!0-9.]*) die "\"$1\" is no factor" 'usage: loadtest/overload.sh [--seconds N] [--capacity N] [--turn-ms N] [--json FOLDER] [TIMES…]' ;;
    *) times+=("$1") ;;
  esac
  shift
done
[ ${#times[@]} -gt 0 ] || times=(1 3)

main() {
  trap stop_all EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  find_gateway_and_driver
  make_work_dir
  [ -z "$json" ] || mkdir -p "$json"
  export JWT_SECRET API_KEY
  JWT_SECRET=$(random_secret) API_KEY=$(random_secret)
  start_postgres "${pg_measured[@]}"
  wear_in_postgres
  start_redis
  gateway_up gateway COMMANDS_PER_SECOND=0 USER_COMMANDS_PER_SECOND=0 DRAIN_DELAY_SECONDS=0 DRAIN_SECONDS=1
  # The conversations, and plans for tables that are not empty.
  load 200 5 warm
  analyze_database
  find_share
  printf '%-8s %8s %12s %8s %10s %28s %28s\n' times asked/s acked/s acked refused 'ack ms p50/p99/max' 'refusal ms p50/p99/max'
  local factor
  for factor in "${times[@]}"; do
    throttled "$running_ms" load "$(awk -v f="$factor" -v c="$capacity" 'BEGIN { print f * c }')" "$seconds" "$factor"
    show "$factor"
  done
}

# load RATE SECONDS NAME: the driver's figures go to $work/NAME.json. That not everything arrives is a result.
load() {
  run "$driver" user-to-user --url "ws://127.0.0.1:$http_port" --users 1000 --rate "$1" --seconds "$2" \
    --json "$work/$3.json" >"$work/driver.log" 2>&1 || [ -s "$work/$3.json" ] ||
    { tail -n 20 "$work/driver.log" >&2; die 'the driver failed' 'its last lines stand above'; }
  [ -z "$json" ] || cp "$work/$3.json" "$json/"
}

# throttled MS COMMAND…: runs it while PostgreSQL's processes run MS of each turn.
throttled() {
  local turns
  turn "$1" &
  turns=$!
  shift
  "$@"
  kill "$turns" 2>/dev/null || true
  wait "$turns" 2>/dev/null || true
  signal_backends CONT
}

turn() {
  local runs stands
  runs=$(awk -v ms="$1" 'BEGIN { print ms / 1000 }')
  stands=$(awk -v ms="$1" -v turn="$turn_ms" 'BEGIN { print (turn - ms) / 1000 }')
  trap 'signal_backends CONT; exit 0' TERM
  while kill -0 "$pg_pid" 2>/dev/null; do
    signal_backends STOP
    sleep "$stands"
    signal_backends CONT
    sleep "$runs"
  done
}

# Those that the server of this script has.
signal_backends() {
  local pids
  mapfile -t pids < <(pgrep -P "$pg_pid" -f 'postgres: postgres postgres ' || true)
  [ ${#pids[@]} = 0 ] || kill -"$1" "${pids[@]}" 2>/dev/null || true
}

# The share of a turn, in ms, with which about $capacity messages a second are stored; in $running_ms.
find_share() {
  local low=1 high=$turn_ms rate
  for _ in 1 2 3 4 5; do
    running_ms=$(((low + high) / 2))
    throttled "$running_ms" load "$((capacity * 2))" 6 share
    rate=$(per_second share 6)
    echo "running $running_ms of $turn_ms ms: $rate a second" >&2
    if awk -v r="$rate" -v c="$capacity" 'BEGIN { exit !(r > 0.95 * c && r < 1.1 * c) }'; then break; fi
    if [ "${rate%.*}" -gt "$capacity" ]; then high=$running_ms; else low=$running_ms; fi
  done
}

# per_second NAME SECONDS: acknowledgements.
per_second() {
  python3 -c 'import json, sys; print(round(json.load(open(sys.argv[1]))["acked"] / float(sys.argv[2])))' "$work/$1.json" "$2"
}

show() {
  python3 - "$work/$1.json" "$1" "$seconds" "$capacity" <<'PY'
import json, sys
found, factor, seconds, capacity = json.load(open(sys.argv[1])), sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
def three(q):
    return " / ".join(f"{q[name]:.0f}" for name in ("p50", "p99", "max"))
print(f"{factor:<8} {float(factor) * capacity:8.0f} {found['acked'] / seconds:12.0f} {found['acked']:8} {found['refused']:10}"
      f" {three(found['ack_ms']):>28} {three(found['refusal_ms']):>28}")
PY
}

main
