#!/usr/bin/env bash
# Pages with `EventSource` in a real Chromium, behind HAProxy and behind nginx before the same two nodes: they are cut off, told
# 503 and moved by a rolling restart, and must show every message once and in order.
#
#   deploy/event-source.sh
#
# Redis, PostgreSQL and the rest run on free loopback ports and in a temporary directory. GATEWAY=<binary> uses that one instead
# of building, TEST_TOOLS=<directory> is where playwright-core is or comes to (from npm). Debian packages: redis-server postgresql
# haproxy nginx chromium nodejs npm curl. Takes some 50 s.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PATH=$PATH:/usr/sbin
# shellcheck source=deploy/services.sh
. "$root/deploy/services.sh"

readonly BROWSER_SECONDS_MAX=180
tools=${TEST_TOOLS:-${CARGO_TARGET_DIR:-$root/target}/test-tools}
declare -A http=() ops=() pid=()

main() {
  local status=0 node port browser_pid
  trap stop_all EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  require_programs 'redis-server postgresql haproxy nginx chromium nodejs npm curl' \
    redis-server haproxy nginx chromium node npm curl
  find_gateway
  make_work_dir
  export JWT_SECRET
  JWT_SECRET=$(random_secret)
  install_browser_tests "$tools/demo"
  start_postgres fsync=off
  start_redis
  for node in 1 2; do
    http[$node]=$(free_port) ops[$node]=$(free_port)
    node_up "$node"
  done
  port=$(free_port)
  start_haproxy "$port"
  local haproxy_url=http://127.0.0.1:$port
  port=$(free_port)
  start_nginx "$port" "127.0.0.1:${http[1]}" "127.0.0.1:${http[2]}"

  start browser env CHROMIUM="$(command -v chromium)" timeout --kill-after=10 "$BROWSER_SECONDS_MAX" \
    node "$tools/demo/event-source.mjs" "$work" haproxy="$haproxy_url" nginx="http://127.0.0.1:$port"
  browser_pid=$started
  wait_for 60 browser test -e "$work/restart"
  for node in 1 2; do
    drain_node "$node" || status=1
    node_up "$node"
    sleep 2.5 # Until HAProxy counts it as up again (haproxy.cfg: rise 2).
  done
  touch "$work/restarted"
  wait "$browser_pid" || status=1
  forget "$browser_pid"
  cat "$work/browser.log"
  return "$status"
}

# A drain leaves HAProxy the time to notice: inter + fastinter of its configuration, 2.5 s.
node_up() {
  gateway_up "node-$1" HTTP_PORT="${http[$1]}" OPS_PORT="${ops[$1]}" DRAIN_DELAY_SECONDS=3 DRAIN_SECONDS=5
  pid[$1]=$started
}

# SIGTERM, and it must end by itself with exit code 0.
drain_node() {
  local status=0
  kill -TERM "${pid[$1]}"
  wait "${pid[$1]}" || status=$?
  forget "${pid[$1]}"
  [ "$status" = 0 ] || { echo "node $1 ended with exit code $status after SIGTERM"; return 1; }
}

start_haproxy() {
  export PARLEY_BIND=127.0.0.1:$1
  export GATEWAY_1=127.0.0.1:${http[1]} GATEWAY_1_OPS=${ops[1]} GATEWAY_2=127.0.0.1:${http[2]} GATEWAY_2_OPS=${ops[2]}
  start haproxy haproxy -db -f "$root/deploy/haproxy.cfg"
  wait_for 10 haproxy answers 400 "http://127.0.0.1:$1/chat/ws"
}

main "$@"
