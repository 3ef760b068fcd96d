#!/usr/bin/env bash
# What others get while somebody asks for too much:
#
#   loadtest/neighbours.sh [--seconds N] [--json FILE] [KIND…]
#
# Two nodes, Redis and PostgreSQL run on free loopback ports in a temporary directory. For each kind `loadtest user-to-user` sends
# 200 messages a second between 200 users who know each other, once alone, then while the kind goes on. A line tells p50 and p99
# from the due time to the acknowledgement and to the delivery. It fails if a p50 is above 50 ms or a p99 above 500 ms, or if a
# message was not acknowledged or not delivered. --list names the kinds. With hook and slow-hook every message is asked about
# (HOOK_URL); with the latter, the answers for one conversation take almost HOOK_TIMEOUT.
#
# GATEWAY=<binary> and LOADTEST=<binary> use those instead of building. Debian packages: redis-server postgresql curl python3.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=deploy/services.sh
. "$root/deploy/services.sh"

all_kinds=(alone strangers-60 strangers-1000 loud-group edits groups passwords connects pings pongs fragments silent hook
  slow-hook)
kinds=()
seconds=12
json=''
failed=0

main() {
  arguments "$@"
  begin 'redis-server postgresql curl python3' redis-server curl python3
  export WEBHOOK_SECRET
  WEBHOOK_SECRET=$(random_secret)
  start_postgres fsync=on synchronous_commit=on
  local kind
  printf '%-16s %8s %9s %9s %14s %14s  %s\n' kind sent acked delivered 'ack p50/p99' 'delivery' ''
  for kind in "${kinds[@]}"; do one "$kind"; done
  [ -z "$json" ] || { echo '['; sed '$!s/$/,/' "$work/all"; echo ']'; } >"$json"
  [ "$failed" = 0 ]
}

arguments() {
  while [ $# -gt 0 ]; do
    case $1 in
      --seconds) take_number "$@"; shift ;;
      --json) json=${2:?--json needs a file}; shift ;;
      --list) printf '%s\n' "${all_kinds[@]}"; exit 0 ;;
      -h | --help) show_help ;;
      -*) die "unknown option $1" 'see --help' ;;
      *)
        [[ " ${all_kinds[*]} " = *" $1 "* ]] || die "unknown kind $1" "one of: ${all_kinds[*]}"
        kinds+=("$1")
        ;;
    esac
    shift
  done
  [ ${#kinds[@]} -gt 0 ] || kinds=("${all_kinds[@]}")
}

# one KIND: with servers of its own, so that nothing is left over from another kind.
one() {
  local kind=$1 node url_a url_b status=0
  new_database "$kind"
  start_redis
  local redis_pid=$started node_pids=() hook=() hook_pid=''
  if [[ $kind = *hook ]]; then
    local hook_port
    hook_port=$(free_port)
    start hook python3 -B "$root/loadtest/receiver.py" hook "$hook_port"
    hook_pid=$started
    wait_for 20 hook answers 204 "http://127.0.0.1:$hook_port/"
    hook=(HOOK_URL="http://127.0.0.1:$hook_port/hook")
  fi
  for node in a b; do
    gateway_up "node-$node" ${hook[@]+"${hook[@]}"}
    node_pids+=("$started")
    declare "http_$node=$http_port"
  done
  # shellcheck disable=SC2154
  url_a=127.0.0.1:$http_a url_b=127.0.0.1:$http_b
  start bystanders "$driver" user-to-user --url "ws://$url_a" --url "ws://$url_b" --users 200 --rate 200 --seconds "$seconds" \
    --drain-seconds 30 --json "$work/bystanders.json"
  local bystanders=$started
  sleep 2
  abuse_begins "$kind"
  wait "$bystanders" || status=$?
  forget "$bystanders"
  [ -z "$abuse_pid" ] || over "$abuse_pid"
  line "$kind" "$status"
  for node in "${node_pids[@]}"; do stop "$node" 60; done
  stop "$redis_pid"
  [ -z "$hook_pid" ] || stop "$hook_pid"
}

# over PID: waits for the abuse, which ends by itself, and no longer than half a minute.
over() {
  local tenths=300
  while kill -0 "$1" 2>/dev/null && [ "$tenths" -gt 0 ]; do
    sleep 0.1
    tenths=$((tenths - 1))
  done
  stop "$1" 1
}

# Starts what somebody asks for; its id is in $abuse_pid, which is empty if nobody asks for anything.
abuse_begins() {
  local for_seconds=$seconds to=(--url "ws://$url_a" --url "ws://$url_b" --user-prefix s --drain-seconds 1)
  abuse_pid=''
  case $1 in
    alone | hook) return ;;
    strangers-60) start abuse "$driver" strangers "${to[@]}" --users 60 --rate 2700 --seconds "$for_seconds" ;;
    strangers-1000) start abuse "$driver" strangers "${to[@]}" --users 1000 --rate 3000 --seconds "$for_seconds" ;;
    silent) start abuse python3 -B "$root/loadtest/faults/silent.py" --connections 2100 --seconds "$for_seconds" "$url_a" "$url_b" ;;
    *) start abuse python3 -B "$root/loadtest/abuse.py" "$1" --http "$url_a" --seconds "$for_seconds" --rate "$(rate_of "$1")" ;;
  esac
  abuse_pid=$started
}

rate_of() {
  case $1 in
    connects) echo 2700 ;;
    passwords) echo 100 ;;
    *) echo 50 ;;
  esac
}

# line KIND STATUS
line() {
  local fault
  fault=$(python3 -B - "$1" "$work/bystanders.json" "$2" <<'PYTHON'
import json, sys
kind, path, status = sys.argv[1:]
try:
    with open(path, encoding="utf-8") as file:
        of = json.load(file)
except OSError:
    print(f"{kind:<16} the bystanders' driver gave no result (exit code {status})", file=sys.stderr)
    sys.exit(print("FAILED"))
ack, delivery = of["ack_ms"], of["delivery_ms"]
bad = of["acked"] < of["sent"] or of["delivered"] < of["sent"] or max(ack["p50"], delivery["p50"]) > 50 \
    or max(ack["p99"], delivery["p99"]) > 500
show = lambda times: f"{times['p50']:.1f}/{times['p99']:.0f}"
print(f"{kind:<16} {of['sent']:>8} {of['acked']:>9} {of['delivered']:>9} {show(ack):>14} {show(delivery):>14}"
      f"  {'FAILED' if bad else ''}", file=sys.stderr)
print("FAILED" if bad else "")
PYTHON
  )
  [ -z "$fault" ] || failed=$((failed + 1))
  [ -z "$abuse_pid" ] || { printf '%-16s   it: ' ''; grep -E '=|stored|refused|sent|opened' "$work/abuse.log" | sed 's/[│┆]/ /g' | tr -s ' ' | tr '\n' ';' | cut -c1-220 || true; echo; }
  [ ! -s "$work/bystanders.json" ] || tr -d '\n' <"$work/bystanders.json" | sed "s/^{/{\"kind\": \"$1\", /" >>"$work/all"
  echo >>"$work/all"
  rm -f "$work/bystanders.json"
}

main "$@"
