#!/usr/bin/env bash
# Parley and what else one could install, side by side on this machine: the same driver, the same Redis, two nodes each,
# peers in turn, the whole several times over.
#
#   loadtest/compare.sh [--times N] [--peers "NAME …"] [--work "WORK …"] [--short | --results] [--out DIRECTORY]
#
# Peers: parley, centrifuge (the library behind Centrifugo), socket.io, ws-ioredis (what one would write by hand), nats.
# Work: idle (10,000 connections), storm (10,000 connects), 5000 and 10000 (messages a second from user to user), peak, group
# (of 1,000). --short: a tenth of everything, to see that it works. Writes one JSON file per peer, work and round into the
# directory, and a table (compare.md) and a plot of CPU per message over the rate (compare.svg) from all of them; --results
# also puts both into loadtest/RESULTS.md. GATEWAY and LOADTEST name binaries instead of building them.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
PATH=$PATH:/usr/sbin
# shellcheck source=deploy/services.sh
. deploy/services.sh

times=3 peers='parley centrifuge socket.io ws-ioredis nats' works='idle storm 5000 10000 peak group' share=1 out='' page=()
while [ $# -gt 0 ]; do
  case $1 in
    --times | --peers | --work | --out)
      [ $# -gt 1 ] || die "$1 needs a value" 'see the head of this script'
      case $1 in
        --times) times=$2 ;;
        --peers) peers=$2 ;;
        --work) works=$2 ;;
        --out) out=$2 ;;
      esac
      shift
      ;;
    --short) share=10 ;;
    --results) page=(loadtest/RESULTS.md) ;;
    *) die "\"$1\" is unknown" 'see the head of this script' ;;
  esac
  shift
done
[[ $times =~ ^[1-9][0-9]*$ ]] || die "\"$times\" is no number of times" 'give 1 or more'
[ "$share" = 1 ] || [ ${#page[@]} = 0 ] || die 'the short form gives no results to keep' 'leave out --short or --results'

main() {
  trap stop_all EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  make_work_dir
  out=${out:-$PWD/target/compare}
  mkdir -p "$out"
  rm -f "$out"/*.json
  export JWT_SECRET API_KEY=a-key-for-comparing
  JWT_SECRET=$(random_secret)
  build
  start_postgres
  local round peer
  for ((round = 1; round <= times; round++)); do
    for peer in $peers; do
      if available "$peer"; then measure "$peer" "$round"; fi
    done
  done
  python3 loadtest/compare.py "$out" ${page[@]+"${page[@]}"}
}

build() {
  find_gateway_and_driver
  tools=${CARGO_TARGET_DIR:-$root/target}/test-tools/peers
  mkdir -p "$tools"
  local peer
  for peer in socket.io ws-ioredis; do
    if [[ " $peers " = *" $peer "* ]] && available "$peer"; then
      mkdir -p "$tools/$peer"
      cp loadtest/peers/"$peer"/* "$tools/$peer/"
      run npm --prefix "$tools/$peer" ci --silent --no-audit --no-fund --ignore-scripts
    fi
  done
  if [[ " $peers " = *' centrifuge '* ]] && available centrifuge; then
    run go build -C loadtest/peers/centrifuge -o "$tools/centrifuge" .
  fi
}

# available PEER: whether what it takes is installed; said once.
declare -A missing=()
available() {
  local needs
  case $1 in
    parley) return 0 ;;
    centrifuge) needs=go ;;
    socket.io | ws-ioredis) needs=npm ;;
    nats) needs=nats-server ;;
    *) die "\"$1\" is no peer" 'parley, centrifuge, socket.io, ws-ioredis, nats' ;;
  esac
  command -v "$needs" >/dev/null && return 0
  [ -n "${missing[$1]:-}" ] || say "SKIPPED: $1: $needs is not installed"
  missing[$1]=1
  return 1
}

# measure PEER ROUND: fresh servers for each work, so that nothing of one shows in another.
measure() {
  local work_name
  for work_name in $works; do
    say "$1: $work_name, round $2"
    (one "$1" "$work_name" "$out/$1.$work_name.$2.json") || say "$1: $work_name did not end well"
    sleep 1
  done
}

one() {
  local peer=$1 what=$2 json=$3 base=$work
  children=()
  work=$(mktemp -d "$base/$peer.XXXXXX")
  pg_data='' # It is the whole script's, not this subshell's.
  trap stop_all EXIT
  pids=() urls=() speak=(--speak parley) group=()
  [ "$peer" = nats ] || { start_redis && pids+=(--pid "$started"); }
  "up_${peer//[.-]/_}"
  local load=(--jwt-secret "$JWT_SECRET" "${speak[@]}" "${pids[@]}" --json "$json") postgres
  postgres=$(cpu_of_postgres "$base/postgres")
  case $what in
    idle) driver idle --connections $((10000 / share)) --seconds 10 "${load[@]}" "${urls[@]}" ;;
    storm) driver storm --connections $((10000 / share)) "${load[@]}" "${urls[@]}" ;;
    group) driver group --members $((1000 / share)) --messages 50 "${load[@]}" "${group[@]}" ;;
    peak) peak "$json" "${load[@]}" "${urls[@]}" ;;
    *) driver user-to-user --users 1000 --rate $((what / share)) --seconds $((20 / (share > 1 ? 4 : 1))) "${load[@]}" "${urls[@]}" ;;
  esac
  [ "$peer" != parley ] || echo "PostgreSQL: $(($(cpu_of_postgres "$base/postgres") - postgres)) hundredths of a core-second"
}

driver() { run timeout --kill-after=5 300 "$driver" "$@" || echo "exit code $?"; }

# The highest rate of which 99 % arrive while it lasts: up by a quarter until it fails.
peak() {
  local json=$1 rate=$((4000 / share)) last=''
  shift
  while [ "$rate" -lt $((60000 / share)) ]; do
    driver user-to-user --users 1000 --rate "$rate" --seconds 8 --drain-seconds 3 "$@" --json "$json.try"
    python3 - "$json.try" "$rate" <<'P' || break
import json, sys
found = json.load(open(sys.argv[1]))
sys.exit(0 if found["delivered_per_second"] >= 0.97 * float(sys.argv[2]) and found["delivered"] >= 0.99 * found["sent"] else 1)
P
    mv "$json.try" "$json"
    last=$rate
    rate=$((rate * 5 / 4))
  done
  rm -f "$json.try"
  echo "sustained: ${last:-less than the first rate}"
}

# Two nodes: their ids in $pids, their addresses in $urls, what makes a group in $group.
node() {
  local name=$1 port=$2
  shift 2
  start "$name" "$@"
  pids+=(--pid "$started")
  wait_for 30 "$name" listens "$port"
  urls+=(--url "ws://127.0.0.1:$port")
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

up_parley() {
  local number port ops name=compare_$RANDOM$RANDOM
  as_postgres "$pg_bin/psql" -qX "$pg_url" -c "CREATE DATABASE $name" >/dev/null
  for number in 1 2; do
    port=$(free_port) ops=$(free_port)
    node "gateway-$number" "$port" env REDIS_URL="$redis_url" DATABASE_URL="${pg_url%/*}/$name" HTTP_HOST=127.0.0.1 \
      HTTP_PORT="$port" OPS_HOST=127.0.0.1 OPS_PORT="$ops" COMMANDS_PER_SECOND=0 USER_COMMANDS_PER_SECOND=0 \
      API_KEY=$API_KEY "$gateway" serve
    wait_for 30 "gateway-$number" answers 200 "http://127.0.0.1:$ops/readyz"
  done
  group=("${urls[@]}" --http "http://127.0.0.1:$port")
}

up_centrifuge() {
  local number port
  speak=(--speak centrifuge)
  for number in 1 2; do
    port=$(free_port)
    node "centrifuge-$number" "$port" "$tools/centrifuge" "$port" "${redis_url#redis://}"
  done
  group=("${urls[@]}" --group g1)
}

up_socket_io() {
  speak=(--speak socket-io)
  up_node_js socket.io
  group=("${urls[@]}" --group g1)
}

up_ws_ioredis() {
  up_node_js ws-ioredis
  local at
  for ((at = 1; at < ${#urls[@]}; at += 2)); do group+=(--url "${urls[at]}/?group=g1"); done
  group+=(--group g1)
}

up_node_js() {
  local number port
  for number in 1 2; do
    port=$(free_port)
    node "$1-$number" "$port" node "$tools/$1/server.js" "$port" "$redis_url"
  done
}

up_nats() {
  local number port cluster other
  speak=(--speak nats)
  cluster=$(free_port)
  for number in 1 2; do
    port=$(free_port)
    other=''
    [ "$number" = 1 ] || other="routes: [\"nats://127.0.0.1:$cluster\"]"
    cat >"$work/nats-$number.conf" <<C
server_name: n$number
listen: 127.0.0.1:$(free_port)
websocket { listen: "127.0.0.1:$port", no_tls: true }
cluster { name: compare, listen: 127.0.0.1:$([ "$number" = 1 ] && echo "$cluster" || free_port), $other }
C
    node "nats-$number" "$port" nats-server -c "$work/nats-$number.conf"
  done
  sleep 1 # Until the two know each other.
  group=("${urls[@]}" --group g1)
}

main
