# Sourced by ../faults.sh: a replica of the fault's Redis, three Sentinels, and the faults of the master that they look after.
# shellcheck shell=bash disable=SC2154

# Nodes that start afterwards ask the Sentinels where Redis is.
sentinels_up() {
  local n port hosts=''
  replica_port=$(free_port)
  mkdir "$work/replica"
  start replica redis-server --port "$replica_port" --bind 127.0.0.1 --save '' --appendonly no --dir "$work/replica" \
    --maxmemory-policy noeviction --replicaof 127.0.0.1 "$redis_port"
  wait_for 20 replica replica_follows
  for n in 1 2 3; do
    port=$(free_port)
    cat >"$work/sentinel-$n.conf" <<END
port $port
bind 127.0.0.1
dir $work
sentinel monitor chat 127.0.0.1 $redis_port 2
sentinel down-after-milliseconds chat 1000
sentinel failover-timeout chat 5000
END
    start "sentinel-$n" redis-sentinel "$work/sentinel-$n.conf"
    hosts+=${hosts:+,}127.0.0.1:$port
  done
  for port in ${hosts//,/ }; do
    wait_for 30 sentinel-1 knows_the_others "${port#*:}"
  done
  node_env+=(REDIS_URL="redis-sentinel://$hosts/chat")
}

replica_follows() { redis-cli -p "$replica_port" info replication | grep -q master_link_status:up; }
replica_is_master() { redis-cli -p "$replica_port" info replication | grep -q role:master; }

# Two Sentinels besides itself, and the replica.
knows_the_others() {
  local state
  state=$(redis-cli -p "$1" sentinel master chat | paste -sd ' ')
  [[ $state = *'num-slaves 1 num-other-sentinels 2'* ]]
}

fault_sentinel_master_kill9() {
  sentinels_up
  nodes_up
  load_over 8
  kill_now "$redis_pid"
  soon 10 'the Sentinels did not promote the replica within 10 s' replica_is_master
  both_ready_again
  judge
  expect "$(count resyncs)" gt 0 'nobody was told that the logs are others'
}

# The old master wakes under load and is a master still, until the Sentinels make it a replica.
fault_sentinel_master_sigstop() {
  sentinels_up
  nodes_up
  load_over 10
  kill -STOP "$redis_pid"
  soon 10 'the Sentinels did not promote the replica within 10 s' replica_is_master
  both_ready_again
  kill -CONT "$redis_pid"
  judge
  expect "$(count resyncs)" gt 0 'nobody was told that the logs are others'
}
