#!/usr/bin/env bash
# Parley and what else one could install, side by side on this machine: the same driver, the same Redis, two nodes each,
# peers in turn, the whole several times over. The table has a row for each figure that Parley is measured by.
#
#   loadtest/compare.sh [--times N] [--peers "NAME …"] [--work "WORK …"] [--short | --results] [--out DIRECTORY]
#
# Peers: parley; parley-without-store (the same server, which acknowledges and keeps nothing: the peers don't either);
# centrifugo (6, if it is on the PATH), centrifuge (the library behind it), socket.io, ws-ioredis (what one would write by
# hand), nats.
# Work: idle (10,000 connections), storm (10,000 connects), ephemeral (5,000 a second of what is kept nowhere: typing beside
# publications of the same size), 5000 and 10000 (messages a second from user to user), peak, group (of 1,000), herd (one of
# two nodes is killed, and its 10,000 listeners resume on the other while messages for them go on), store (stored messages
# beside bulk inserts, by loadtest/store.sh). A peer that has no such thing is left out of a work.
# --short: a tenth of everything, to see that it works. Writes one JSON file per peer, work and round into the directory, and
# a table (compare.md) and a plot of CPU per message over the rate (compare.svg) from all of them; --results also puts both
# into loadtest/RESULTS.md. GATEWAY, LOADTEST and WITHOUT_STORE (gateway/examples/without_store) name binaries instead of
# building them.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
PATH=$PATH:/usr/sbin
# shellcheck source=deploy/services.sh
. deploy/services.sh

times=3 share=1
peers='parley parley-without-store centrifugo centrifuge socket.io ws-ioredis nats'
works='idle storm ephemeral 5000 10000 peak group herd store'
out='' page=() unwell=()
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
  start_postgres "${pg_measured[@]}"
  local round peer
  for ((round = 1; round <= times; round++)); do
    for peer in $peers; do
      if available "$peer"; then measure "$peer" "$round"; fi
    done
  done
  python3 loadtest/compare.py "$out" ${page[@]+"${page[@]}"}
  [ ${#unwell[@]} = 0 ] || printf 'did not end well: %s\n' "${unwell[@]}"
  # At full load a peer may well fail; that is a result.
  [ "$share" = 1 ] || [ ${#unwell[@]} = 0 ]
}

build() {
  find_gateway_and_driver
  without_store=${WITHOUT_STORE:-}
  if [[ " $peers " = *' parley-without-store '* ]]; then
    if [ -z "$without_store" ]; then
      run cargo build --release --package=gateway --package=loadtest --example without_store
      without_store=${CARGO_TARGET_DIR:-$root/target}/release/examples/without_store
    fi
    must_be_a_program WITHOUT_STORE "$without_store"
  fi
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
    parley | parley-without-store) return 0 ;;
    # Its settings have other names before 6.
    centrifugo) needs='centrifugo 6' && ! grep -q -e --http_server.port <(centrifugo --help 2>&1) || return 0 ;;
    centrifuge) needs=go ;;
    socket.io | ws-ioredis) needs=npm ;;
    nats) needs=nats-server ;;
    *) die "\"$1\" is no peer" 'parley, parley-without-store, centrifugo, centrifuge, socket.io, ws-ioredis, nats' ;;
  esac
  ! command -v "$needs" >/dev/null || return 0
  [ -n "${missing[$1]:-}" ] || say "SKIPPED: $1: $needs is not installed"
  missing[$1]=1
  return 1
}

# has PEER WORK: whether there is such a thing.
has() {
  case $1.$2 in
    parley.* | nats.ephemeral) true ;;
    *.ephemeral | *.herd | *.store) false ;;
    parley-without-store.*) [[ $2 =~ ^(5000|10000|peak)$ ]] ;;
    *) true ;;
  esac
}

# measure PEER ROUND: fresh servers for each work, so that nothing of one shows in another.
measure() {
  local work_name begun
  for work_name in $works; do
    has "$1" "$work_name" || continue
    begun=$SECONDS
    say "$1: $work_name, round $2"
    (one "$1" "$work_name" "$out/$1.$work_name.$2.json") || {
      echo "$1: $work_name did not end well"
      unwell+=("$1: $work_name")
    }
    echo "took $((SECONDS - begun)) s"
    sleep 1
  done
}

one() {
  local peer=$1 what=$2 json=$3 base=$work
  children=()
  work=$(mktemp -d "$base/$peer.XXXXXX")
  pg_data='' # It is the whole script's, not this subshell's.
  trap stop_all EXIT
  if [ "$what" = store ]; then
    store
    return
  fi
  pids=() urls=() speak=(--speak parley) group=() nodes=() rest=() store_pid=() database=''
  [ "$peer" = nats ] || { start_redis && pids+=(--pid "$started"); }
  "up_${peer//[.-]/_}"
  local load=(--jwt-secret "$JWT_SECRET" "${speak[@]}" "${pids[@]}")
  local messages=("${load[@]}" ${store_pid[@]+"${store_pid[@]}"}) seconds=$((share > 1 ? 4 : 12))
  case $what in
    idle)
      # The nodes' memory alone: what Redis holds for a user is a log, and no connection.
      local node own=(--jwt-secret "$JWT_SECRET" "${speak[@]}")
      for node in "${nodes[@]}"; do own+=(--pid "$node"); done
      driver idle --connections $((10000 / share)) --seconds 5 --after-seconds 0 "${own[@]}" "${urls[@]}" --json "$json"
      ;;
    storm) driver storm --connections $((10000 / share)) "${load[@]}" "${urls[@]}" --json "$json" ;;
    group) driver group --members $((1000 / share)) --messages $((share > 1 ? 10 : 30)) "${messages[@]}" "${group[@]}" --json "$json" ;;
    peak)
      warm_up 1000
      peak "${messages[@]}" "${urls[@]}"
      ;;
    herd) herd ;;
    ephemeral)
      # With this content a publication is as long as the typing that others hear.
      driver user-to-user --ephemeral --content-bytes 48 --users 1000 --rate $((5000 / share)) --seconds "$seconds" \
        "${messages[@]}" "${urls[@]}" --json "$json"
      ;;
    *)
      warm_up $((what / 5))
      driver user-to-user --users 1000 --rate $((what / share)) --seconds "$seconds" "${messages[@]}" "${urls[@]}" \
        --json "$json"
      ;;
  esac
}

# warm_up RATE: the same users for a moment before, at a low rate: every server's caches are warm, and none is tired.
warm_up() {
  driver user-to-user --users 1000 --rate $(($1 / share)) --seconds 3 "${messages[@]}" "${urls[@]}"
  analyze
}

analyze() { [ -z "$database" ] || analyze_database; }

driver() {
  local status=0
  run timeout --kill-after=5 300 "$driver" "$@" || status=$?
  [ "$status" = 0 ] || echo "exit code $status"
  return "$status"
}

# The highest rate of which 99 % arrive while it lasts: doubled until it fails, and then found to a quarter of the last one.
peak() {
  local rate=$((4000 / share)) last=0 step
  while [ "$rate" -lt $((share > 1 ? 1000 : 100000)) ] && sustains "$@"; do
    last=$rate
    rate=$((rate * 2))
  done
  step=$((last / 2))
  for _ in 1 2; do
    rate=$((last + step))
    if [ "$step" -gt 0 ] && sustains "$@"; then last=$rate; fi
    step=$((step / 2))
  done
  rm -f "$json.try"
  echo "sustained: $last"
  [ "$last" -gt 0 ]
}

# sustains OPTION…: whether $rate is; then the result stays in $json.
sustains() {
  rm -f "$json.try"
  driver user-to-user --users 1000 --rate "$rate" --seconds $((share > 1 ? 2 : 6)) --drain-seconds 3 "$@" --json "$json.try" ||
    true # Whether it sustains the rate is asked below.
  python3 - "$json.try" "$rate" <<'P' || return 1
import json, sys
found = json.load(open(sys.argv[1]))
sys.exit(0 if found["delivered_per_second"] >= 0.97 * float(sys.argv[2]) and found["delivered"] >= 0.99 * found["sent"] else 1)
P
  mv "$json.try" "$json"
}

# One node's listeners, 10,000 of them, come to the other one. Its CPU and Redis' is what is counted.
herd() {
  local redis=${pids[1]} clients
  clients=("${urls[@]}" --connections $((10000 / share)) --senders $((100 / share)) --rate $((1000 / share))
    --jwt-secret "$JWT_SECRET" --pid "$redis" --pid "${nodes[1]}" "${store_pid[@]}")
  # All conversations are there before, as in a deployment that is in use.
  driver herd --http "${rest[0]}" --http "${rest[1]}" --seconds 4 --cut-at 2 "${clients[@]}"
  analyze
  driver herd --kill "${nodes[0]}" --http "${rest[1]}" --seconds $((share > 1 ? 6 : 20)) --cut-at $((share > 1 ? 3 : 10)) \
    "${clients[@]}" --json "$json"
}

# The group commit beside bulk inserts, in batches of fifty.
store() {
  local seconds=$((share > 1 ? 1 : 3))
  run env GATEWAY="$gateway" LOADTEST="$driver" loadtest/store.sh --seconds "$seconds" --json "$json" 50
}

# Two nodes: their ids in $nodes and, as options, in $pids, their addresses in $urls, what makes a group in $group.
node() {
  local name=$1 port=$2
  shift 2
  start "$name" "$@"
  wait_for 30 "$name" listens "$port"
  add_node "$port"
}

# add_node PORT: the one that was started last.
add_node() {
  nodes+=("$started")
  pids+=(--pid "$started")
  urls+=(--url "ws://127.0.0.1:$1")
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

up_parley() {
  new_database "compare_$RANDOM$RANDOM"
  wear_in_postgres
  store_pid=(--store-pid "$pg_pid")
  gateways "$gateway" serve
}

up_parley_without_store() { gateways "$without_store"; }

# gateways COMMAND…: two of them.
gateways() {
  local number
  for number in 1 2; do
    gateway_up "gateway-$number" COMMANDS_PER_SECOND=0 USER_COMMANDS_PER_SECOND=0 DRAIN_DELAY_SECONDS=0 DRAIN_SECONDS=1 "$@"
    add_node "$http_port"
    rest+=("http://127.0.0.1:$http_port")
  done
  group=("${urls[@]}" --http "${rest[0]}")
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

# Without a backend: clients publish into each other's personal channels, which they are subscribed to by the server, with
# history and recovery.
up_centrifugo() {
  local number port history='"history_size": 256, "history_ttl": "1h", "force_recovery": true, "allow_publish_for_client": true'
  speak=(--speak centrifugo)
  for number in 1 2; do
    port=$(free_port)
    cat >"$work/centrifugo-$number.json" <<C
{
  "http_server": { "address": "127.0.0.1", "port": "$port" },
  "engine": { "type": "redis", "redis": { "address": "$redis_url" } },
  "log": { "level": "error" },
  "client": {
    "token": { "hmac_secret_key": "$JWT_SECRET" },
    "subscribe_to_user_personal_channel": { "enabled": true, "personal_channel_namespace": "user" }
  },
  "channel": {
    "namespaces": [
      { "name": "user", $history },
      { "name": "group", "allow_subscribe_for_client": true, $history }
    ]
  }
}
C
    node "centrifugo-$number" "$port" centrifugo --config "$work/centrifugo-$number.json"
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
