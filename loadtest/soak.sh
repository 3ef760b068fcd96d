#!/usr/bin/env bash
# A long run under mixed load, and the question whether anything still grows:
#
#   loadtest/soak.sh [--short] [--minutes N] [--rate N] [--samples FILE]
#
# Two nodes, Redis and PostgreSQL run on free loopback ports in a temporary directory. `loadtest mixed` sends messages, types,
# reads, asks for presence and lets visitors come and go; `loadtest strangers` opens new conversations. RESUME_SECONDS is 120,
# so that logs come to rest. Every ten seconds a line of samples is taken: of each node the heap in use by the allocator's own
# count, RSS, descriptors and tasks; Redis' memory and keys; the size of the outbox and dead rows in PostgreSQL.
# soak.py fits a line through the samples after the first third (ten minutes of the default 30). The run fails if the lower
# bound of a slope is above its limit (1 MB an hour for memory), or if a load didn't go as it should. --short takes a minute
# and judges only that the load went well and that everything could be measured: a minute shows no growth.
#
# GATEWAY=<binary> and LOADTEST=<binary> use those instead of building. Debian packages: redis-server postgresql curl python3.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=deploy/services.sh
. "$root/deploy/services.sh"

short=false
minutes=30
rate=300
samples=''
readonly INTERVAL=10

main() {
  arguments "$@"
  begin 'redis-server postgresql curl python3' redis-server redis-cli curl python3
  samples=${samples:-$work/samples.tsv}
  start_postgres fsync=off autovacuum_naptime=10s
  start_redis
  gateway_up node-a RESUME_SECONDS=120
  http_a=$http_port ops_a=$ops_port
  gateway_up node-b RESUME_SECONDS=120
  http_b=$http_port ops_b=$ops_port
  start_load
  sample_until_over
  local failed=0
  ended mixed "$mixed_pid" || failed=1
  ended strangers "$strangers_pid" || failed=1
  say "growth after the first $((minutes * 20)) s"
  local judged=(--after $((minutes * 20)))
  ! $short || judged+=(--measured-only)
  python3 -B "$root/loadtest/soak.py" "$samples" "${judged[@]}" || failed=1
  if [ "$failed" = 0 ]; then echo 'soak: passed'; else echo 'soak: FAILED'; fi
  return "$failed"
}

arguments() {
  while [ $# -gt 0 ]; do
    case $1 in
      --short) short=true minutes=1 rate=60 ;;
      --minutes | --rate) take_number "$@"; shift ;;
      --samples) samples=${2:?--samples needs a file}; shift ;;
      -h | --help) show_help ;;
      *) die "unknown argument $1" 'see --help' ;;
    esac
    shift
  done
}

start_load() {
  local nodes=(--url "ws://127.0.0.1:$http_a" --url "ws://127.0.0.1:$http_b")
  begun=$SECONDS
  start mixed "$driver" mixed "${nodes[@]}" --http "http://127.0.0.1:$http_a" --users 400 --groups 20 --visitors 200 \
    --rate "$rate" --seconds $((minutes * 60)) --token-seconds 86400
  mixed_pid=$started
  start strangers "$driver" strangers "${nodes[@]}" --user-prefix s --users 20 --rate 5 --seconds $((minutes * 60)) \
    --token-seconds 86400
  strangers_pid=$started
}

sample_until_over() {
  printf 'second\ta_heap_bytes\ta_rss_bytes\ta_descriptors\ta_tasks\tb_heap_bytes\tb_rss_bytes\tb_descriptors\tb_tasks' >"$samples"
  printf '\tredis_used_bytes\tredis_keys\toutbox_bytes\toutbox_dead_rows\tmembers_dead_rows\n' >>"$samples"
  while [ $((SECONDS - begun)) -lt $((minutes * 60)) ]; do
    kill -0 "$mixed_pid" 2>/dev/null || { tail -n 30 "$work/mixed.log" >&2; die 'the load ended early' 'its last lines stand above'; }
    { printf '%s\t' $((SECONDS - begun)); of_node "$ops_a"; of_node "$ops_b"; of_redis; of_postgres; } >>"$samples"
    sleep "$INTERVAL"
  done
}

# The fields of a node, each with a tab behind it; "-" for one that can't be read.
of_node() {
  curl -s -m 5 "http://127.0.0.1:$1/metrics" | awk '
    $1 ~ /^(parley_heap_allocated_bytes|process_resident_memory_bytes|process_open_fds|parley_tasks)$/ { of[$1] = $2 }
    function told(name) { return name in of ? of[name] : "-" }
    END { printf "%s\t%s\t%s\t%s\t", told("parley_heap_allocated_bytes"), told("process_resident_memory_bytes"),
          told("process_open_fds"), told("parley_tasks") }'
}

of_redis() {
  local port=${redis_url##*:} used keys
  used=$(redis-cli -p "$port" INFO memory | tr -d '\r' | sed -n 's/^used_memory://p')
  keys=$(redis-cli -p "$port" DBSIZE)
  printf '%s\t%s\t' "${used:--}" "${keys:--}"
}

of_postgres() {
  sql "SELECT pg_total_relation_size('outbox'),
         (SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'outbox'),
         (SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'members')"
}

# ended NAME PID: waits for a load, and shows what it tells; fails if it did.
ended() {
  local status=0
  wait "$2" || status=$?
  forget "$2"
  tail -n 25 "$work/$1.log"
  [ "$status" = 0 ] || echo "$1 ended with exit code $status"
  return "$status"
}

main "$@"
