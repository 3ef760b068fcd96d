#!/usr/bin/env bash
# Faults under load, and the proof that nothing acknowledged is lost, doubled or out of order:
#
#   loadtest/faults.sh [--short] [--events] [--times N] [--json FILE] [--keep] [FAULT…]
#
# For each fault two nodes, Redis and a PostgreSQL that really flushes run on free loopback ports in a temporary
# directory; `loadtest oracle` sends over them, the fault happens, and the oracle judges. When traffic rests, the unread counts
# that each client holds must be the store's. Its users have a socket each, and one in four has a stream of server-sent events
# as well, which is judged alike. All faults if none is named; --list names them.
# --short is for deploy/test.sh: less load, shorter outages. With --events a backend hears of every change over the events
# webhook, and it is judged whether each committed message came, in order for its conversation. --times runs each so many times in a row, --json writes the
# table to a file as well, --keep leaves logs and verdicts of what failed in the temporary directory.
#
# Each fault draws from a seed, which it prints: the messages that the oracle sends, its clients' waits, and the moments of
# the harm. SEED=N uses that one. How fast servers are can't be repeated, so a second run may still go another way.
#
# GATEWAY=<binary> and LOADTEST=<binary> use those instead of building. Debian packages: redis-server redis-sentinel
# postgresql haproxy curl iproute2 libfaketime python3. Ends with the table and "N passed, M failed"; the exit code is 0 only if none failed.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PATH=$PATH:/usr/sbin:/sbin
# shellcheck source=deploy/services.sh
. "$root/deploy/services.sh"
# shellcheck source=loadtest/faults/rig.sh
. "$root/loadtest/faults/rig.sh"
# shellcheck source=loadtest/faults/postgres.sh
. "$root/loadtest/faults/postgres.sh"
# shellcheck source=loadtest/faults/network.sh
. "$root/loadtest/faults/network.sh"
# shellcheck source=loadtest/faults/list.sh
. "$root/loadtest/faults/list.sh"
# shellcheck source=loadtest/faults/overload.sh
. "$root/loadtest/faults/overload.sh"
# shellcheck source=loadtest/faults/sentinel.sh
. "$root/loadtest/faults/sentinel.sh"
# shellcheck source=loadtest/faults/cluster.sh
. "$root/loadtest/faults/cluster.sh"
# shellcheck source=loadtest/faults/events.sh
. "$root/loadtest/faults/events.sh"

# The exit code of a fault that this machine doesn't allow.
readonly SKIPPED=77
short=false
events=false
times=1
json=''
keep=false
faults=()
skipped=()
passed=0
failed=0

main() {
  arguments "$@"
  trap finish EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  require_programs 'redis-server redis-sentinel postgresql haproxy curl iproute2 libfaketime python3' \
    redis-server redis-sentinel redis-cli haproxy curl ip python3
  find_gateway_and_driver
  sizes
  make_work_dir
  results=$work/results
  mkdir "$results"
  export JWT_SECRET API_KEY
  JWT_SECRET=$(random_secret) API_KEY=$(random_secret)
  start_postgres fsync=on full_page_writes=on synchronous_commit=on
  pg_data_of_all=$pg_data

  local fault round
  for fault in "${faults[@]}"; do
    for ((round = 1; round <= times; round++)); do
      one "$fault" "$round"
    done
  done
  table
}

arguments() {
  while [ $# -gt 0 ]; do
    case $1 in
      --short) short=true ;;
      --events) events=true ;;
      --keep) keep=true ;;
      --times) times=${2:?--times needs a number}; shift ;;
      --json) json=${2:?--json needs a file}; shift ;;
      --list) printf '%s\n' "${all_faults[@]}"; exit 0 ;;
      -h | --help) show_help ;;
      -*) die "unknown option $1" 'see --help' ;;
      *)
        [[ " ${all_faults[*]} " = *" $1 "* ]] || die "unknown fault $1" "one of: ${all_faults[*]}"
        faults+=("$1")
        ;;
    esac
    shift
  done
  [[ $times =~ ^[1-9][0-9]*$ ]] || die "\"$times\" is no number of times" 'give 1 or more'
  [[ ${SEED:-0} =~ ^(0|[1-9][0-9]{0,8})$ ]] || die "\"$SEED\" is no seed" 'give a number below 1,000,000,000'
  [ ${#faults[@]} -gt 0 ] || faults=("${all_faults[@]}")
}

# skip REASON: this machine doesn't allow the fault. Said aloud now and in the end.
skip() {
  echo "$1" >"$results/$fault.skipped"
  echo "-- $fault: SKIPPED: $1"
  exit "$SKIPPED"
}

# sized SHORT LONG: whichever is asked for.
sized() { if $short; then echo "$1"; else echo "$2"; fi; }

sizes() {
  rate=$(sized 150 500)
  settle=$(sized 150 180) # A run that is clean ends as soon as everything has arrived.
  outage=$(sized 8 30)
  drain_delay=$(sized 1 5)
  drain=$(sized 4 30)
  users=$(sized 40 200)
}

# one FAULT ROUND: in a subshell that cleans up after itself, so that a fault which breaks off takes nothing with it.
one() {
  local fault=$1 name=$1 status=0 seed=${SEED:-$((RANDOM * 30000 + RANDOM % 30000))}
  [ "$times" = 1 ] || name="$1 ($2 of $times)"
  say "$name, seed $seed"
  (
    children=() pg_data='' SECONDS=0 RANDOM=$seed
    trap fault_over EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    servers_up
    "fault_${fault//-/_}"
    write_line
  ) &
  children+=("$!")
  wait "$!" || status=$?
  forget "$!"
  if [ "$status" = "$SKIPPED" ]; then
    skipped+=("$fault: $(cat "$results/$fault.skipped")")
    return 0
  fi
  [ -s "$results/$fault.json" ] ||
    printf '{"fault": "%s", "seed": %s, "passed": false, "seconds": 0}\n' "$fault" "$seed" >"$results/$fault.json"
  tee -a "$results/all" <"$results/$fault.json" >/dev/null
  if [ "$status" = 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
  echo "-- $name: $(if [ "$status" = 0 ]; then echo passed; else echo "FAILED (SEED=$seed draws the same again)"; fi)"
  if [ "$status" != 0 ] && $keep; then mv "$work/$fault" "$work/kept-$fault-$2"; else rm -rf "${work:?}/$fault"; fi
  rm -f "$results/$fault.json"
}

# The subshell's end: what was stopped goes on, so that it can end; then everything that the fault started ends.
fault_over() {
  trap '' INT TERM
  local pid
  for pid in ${children[@]+"${children[@]}"}; do kill -CONT "$pid" 2>/dev/null || true; done
  postgres_go_on
  undo_network
  for pid in ${children[@]+"${children[@]}"}; do kill -KILL -- "-$pid" 2>/dev/null || true; done
  for pid in ${children[@]+"${children[@]}"}; do wait "$pid" 2>/dev/null || true; done
  "$pg_bin/psql" -qX "$pg_url" -c "DROP DATABASE IF EXISTS \"$fault\" WITH (FORCE)" >/dev/null 2>&1 || true
}

table() {
  local row='%-32s %7s %5s %8s %13s %6s %6s %8s %8s %16s  %s\n' line
  say 'faults'
  # shellcheck disable=SC2059
  printf "$row" fault acked lost doubled 'out of order' holes counts resumes resyncs 'longest gap, ms' ''
  while read -r line; do
    # shellcheck disable=SC2059
    printf "$row" "$(value fault)" "$(value acked)" "$(value lost)" "$(value doubled)" "$(value outOfOrder)" \
      "$(value holes)" "$(value counts)" "$(value resumes)" "$(value resyncs)" "$(value longestGapMs)" \
      "$(if [ "$(value passed)" = true ]; then echo passed; else echo FAILED; fi)"
  done <"$results/all"
  for line in ${skipped[@]+"${skipped[@]}"}; do echo "SKIPPED: $line"; done
  [ -z "$json" ] || { echo '['; sed '$!s/$/,/' "$results/all"; echo ']'; } >"$json"
  echo
  echo "$passed passed, $failed failed$(if [ ${#skipped[@]} -gt 0 ]; then echo ", ${#skipped[@]} SKIPPED"; fi)"
}

# The field of $line.
value() {
  local found
  found=$(grep -oE "\"$1\": *[^,}]+" <<<"$line" | sed 's/^[^:]*: *//; s/"//g' || true)
  echo "${found:--}"
}

finish() {
  local status=$?
  trap '' INT TERM
  if $keep && [ -n "$work" ] && [ "$failed" -gt 0 ]; then
    echo "logs and verdicts of what failed: $work/kept-*"
    local work_kept=$work
    work=''
    stop_all
    rm -rf "${work_kept:?}/postgres" "$work_kept/results"
  else
    stop_all
  fi
  [ "$failed" = 0 ] || [ "$status" != 0 ] || status=1
  exit "$status"
}

main "$@"
