# Sourced by ../faults.sh: a Redis Cluster of three masters with a replica each, and its faults.
# shellcheck shell=bash disable=SC2154

# Ports and process ids: three masters, then their replicas in the same order.
cluster_ports=()
cluster_pids=()

# Nodes that start afterwards use the Cluster.
cluster_up() {
  local n port bus first urls='' buses=()
  for n in 0 1 2 3 4 5; do
    port=$(free_port) bus=$(free_port)
    mkdir "$work/cluster-$n"
    start "cluster-$n" redis-server --port "$port" --cluster-port "$bus" --bind 127.0.0.1 --save '' --appendonly no \
      --dir "$work/cluster-$n" --maxmemory-policy noeviction --cluster-enabled yes --cluster-node-timeout 2000 \
      --cluster-require-full-coverage no --repl-diskless-sync-delay 0
    cluster_ports+=("$port") cluster_pids+=("$started") buses+=("$bus")
    wait_for 10 "cluster-$n" redis-cli -p "$port" ping
  done
  first=${cluster_ports[0]}
  for n in 0 1 2; do
    port=${cluster_ports[n]}
    redis-cli -p "$port" cluster set-config-epoch $((n + 1)) >/dev/null
    redis-cli -p "$port" cluster addslotsrange $((n * 16384 / 3)) $(((n + 1) * 16384 / 3 - 1)) >/dev/null
    urls+=${urls:+,}redis://127.0.0.1:$port
  done
  for n in 1 2 3 4 5; do redis-cli -p "$first" cluster meet 127.0.0.1 "${cluster_ports[n]}" "${buses[n]}" >/dev/null; done
  for port in "${cluster_ports[@]}"; do wait_for 20 cluster-0 cluster_says "$port" info cluster_known_nodes:6; done
  for n in 0 1 2; do wait_for 10 "cluster-$((n + 3))" cluster_replicates $((n + 3)) "$n"; done
  for n in 0 1 2; do
    wait_for 20 "cluster-$((n + 3))" redis_says "${cluster_ports[n + 3]}" master_link_status:up
    wait_for 20 "cluster-$n" cluster_says "${cluster_ports[n]}" info cluster_state:ok
    wait_for 20 "cluster-$n" knows_three_replicas "${cluster_ports[n]}"
  done
  node_env+=(REDIS_URL="$urls")
}

cluster_says() { redis-cli -p "$1" cluster "$2" | grep -q "$3"; }
redis_says() { redis-cli -p "$1" info replication | grep -q "$2"; }
knows_three_replicas() { [ "$(redis-cli -p "$1" cluster nodes | grep -c ' slave ')" = 3 ]; }

cluster_replicates() {
  [ "$(redis-cli -p "${cluster_ports[$1]}" cluster replicate "$(cluster_id "$2")")" = OK ]
}

cluster_id() { redis-cli -p "${cluster_ports[$1]}" cluster myid; }

# Every node knows the same owner of each slot; after a move it takes a moment until the replicas have heard of it.
slots_agreed() { redis-cli --cluster check "127.0.0.1:${cluster_ports[0]}" >/dev/null 2>&1; }

# move_slots FROM TO NUMBER: as an operator does it.
move_slots() {
  wait_for 20 cluster-0 slots_agreed
  redis-cli --cluster reshard "127.0.0.1:${cluster_ports[0]}" --cluster-from "$(cluster_id "$1")" \
    --cluster-to "$(cluster_id "$2")" --cluster-slots "$3" --cluster-yes >>"$work/reshard.log" 2>&1 ||
    object "slots could not be moved from master $1 to $2: $(tail -n 1 "$work/reshard.log")"
}

# Two thirds of a master's slots go round; nobody has to wait, and both nodes stay ready.
fault_cluster_slot_moves() {
  local slots
  slots=3600
  cluster_up
  nodes_up
  load_over "$(sized 26 45)"
  move_slots 0 1 "$slots"
  is_ready "$ops_a" || object 'node a was not ready while slots moved'
  move_slots 1 2 "$slots"
  is_ready "$ops_b" || object 'node b was not ready while slots moved'
  move_slots 2 0 "$slots"
  judge
  expect "$(count resyncs)" gt 0 'nobody was told that the logs are others'
}

# Two of three masters are there all the time: both nodes stay ready, and only a third of the users is told to fetch.
fault_cluster_master_kill9() {
  cluster_up
  nodes_up
  load_over 10
  kill_now "${cluster_pids[1]}"
  soon 15 'the replica was not promoted within 15 s' redis_says "${cluster_ports[4]}" role:master
  is_ready "$ops_a" || object 'node a was not ready although two masters were there'
  is_ready "$ops_b" || object 'node b was not ready although two masters were there'
  both_receive "${cluster_ports[4]}"
  judge
  expect "$(count resyncs)" gt 0 'nobody was told that the logs are others'
  expect "$(full_resyncs)" lt $((users * 3 / 4)) 'users of masters that were well were told to fetch'
}

# The old master wakes under load, and is a master still until the others have told it.
fault_cluster_master_sigstop() {
  cluster_up
  nodes_up
  load_over 12
  kill -STOP "${cluster_pids[1]}"
  soon 15 'the replica was not promoted within 15 s' redis_says "${cluster_ports[4]}" role:master
  both_receive "${cluster_ports[4]}"
  kill -CONT "${cluster_pids[1]}"
  soon 15 'the old master did not become a replica within 15 s' redis_says "${cluster_ports[1]}" role:slave
  judge
  expect "$(count resyncs)" gt 0 'nobody was told that the logs are others'
  expect "$(full_resyncs)" lt $((users * 3 / 4)) 'users of masters that were well were told to fetch'
}

# Without markers, which name what is to be fetched.
full_resyncs() { echo $(($(count resyncs) - $(count markers))); }

# both_receive PORT: both nodes have subscribed there.
both_receive() { soon 15 'a node did not follow to the new master within 15 s' two_receive "$1"; }
two_receive() { [ "$(redis-cli -p "$1" pubsub numsub chat:all | tail -n 1)" -ge 2 ]; }
