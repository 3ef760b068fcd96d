# Sourced by ../faults.sh: the faults. Each is a function fault_NAME: start what it needs, put it under load, do the harm.
# The oracle judges; what it can't know, that the harm was done and what else was promised, each expects for itself.
# shellcheck shell=bash disable=SC2154

all_faults=(kill9-node hot-users-kill9 sigterm-node rolling-restart redis-kill9-empty redis-sigstop redis-cut-off
  postgres-immediate-restart postgres-sigstop kill-between-commit-and-publish node-and-redis-killed stalled-receivers half-open reconnect-herd
  raced-temp-id clock-step paused-node strangers loud-group frozen-store silent-connections sentinel-master-kill9 sentinel-master-sigstop
  cluster-slot-moves cluster-master-kill9 cluster-master-sigstop)

# load_over SECONDS [OPTION…]: outlasts the harm by some seconds, so that what follows it is seen under load too.
load_over() { load $(($1 + $(sized 5 15))) "${@:2}"; }

fault_kill9_node() {
  nodes_up
  load_over 4
  kill_now "${node_pid[a]}"
  sleep 2
  node_up a
  judge
  expect "$(count reconnects)" ge $((users / 2)) 'the clients of the killed node did not come back'
}

# Users whose logs would be trimmed before the other node publishes what the killed one hadn't marked, some 12 s later.
fault_hot_users_kill9() {
  users=$(sized 10 20)
  groups=0
  rate=$((users * 40)) # Each message is an event for two: 80 a second for each user.
  node_env=(RESUME_EVENTS=256)
  nodes_up
  load_over 18
  kill_now "${node_pid[a]}"
  sleep 16
  node_up a
  judge
  echo "   rows published again: $(redone), markers: $(metric b parley_markers_total)"
  expect "$(count reconnects)" ge $((users / 2)) 'the clients of the killed node did not come back'
}

fault_sigterm_node() {
  users=$(sized 200 2000)
  pairs=$((users / 2))
  # HAProxy needs 2.5 s to notice (inter + fastinter of its configuration).
  drain_delay=$(sized 3 5)
  drain=$(sized 7 30)
  nodes_up
  haproxy_up
  load_over $((drain + 2))
  drain_node a
  node_up a
  judge
  expect "$(count reconnects)" ge $((users / 3)) 'the clients of the drained node did not move'
  expect "$(count connects_failed)" eq 0 'connects were refused or reset'
}

fault_rolling_restart() {
  local round node
  drain_delay=1
  drain=$(sized 2 10)
  nodes_up
  load_over $((6 * (drain + 2)))
  for round in 1 2 3; do
    for node in a b; do
      drain_node "$node"
      node_up "$node"
      echo "   round $round, node $node: drained and up again"
    done
  done
  judge
  expect "$(count reconnects)" ge $((users * 3)) 'the clients were not moved three times'
}

fault_redis_kill9_empty() {
  nodes_up
  load_over 4
  kill_now "$redis_pid"
  sleep 1
  redis_up
  both_ready_again
  judge
  expect "$(count resyncs)" gt 0 'nobody was told that the logs are gone'
}

fault_redis_sigstop() {
  nodes_up
  load_over "$outage"
  kill -STOP "$redis_pid"
  soon 4 'node a was still ready 4 s after Redis stood still' is_unready "$ops_a"
  soon 1 'node b was still ready 5 s after Redis stood still' is_unready "$ops_b"
  sleep_until_since_load $((outage + 1))
  kill -CONT "$redis_pid"
  both_ready_again
  judge
}

# Redis lives and keeps its data, but cuts off the nodes: what ran may not have been answered. Sometimes those
# who receive, mostly those who publish while those who receive stay.
fault_redis_cut_off() {
  local kills kill kind
  kills=$(sized 12 60)
  rate=$((rate * 2))
  nodes_up
  load_over $((kills / 2 + 2))
  for ((kill = 0; kill < kills; kill++)); do
    kind=$([ $((kill % 3)) = 0 ] && echo pubsub || echo normal)
    redis-cli -p "$redis_port" CLIENT KILL TYPE "$kind" >/dev/null
    sleep "0.$((RANDOM % 5 + 3))"
  done
  both_ready_again
  judge
}

fault_postgres_immediate_restart() {
  nodes_up
  load_over 4
  postgres_crash
  sleep 1
  postgres_back
  both_ready_again
  judge
}

fault_postgres_sigstop() {
  nodes_up
  load_over "$outage"
  postgres_stop_still
  soon 6 'node a was still ready 6 s after PostgreSQL stood still' is_unready "$ops_a"
  soon 1 'node b was still ready 7 s after PostgreSQL stood still' is_unready "$ops_b"
  sleep_until_since_load $((outage + 1))
  postgres_go_on
  both_ready_again
  judge
}

both_ready_again() {
  soon 15 'node a was not ready 15 s after the end of the outage' is_ready "$ops_a"
  soon 5 'node b was not ready 20 s after the end of the outage' is_ready "$ops_b"
}

# There is no fail point: of many kills some hit between a commit and its publication. Before every other one Redis stands
# still for a moment, so that what was committed meanwhile waits in the node or on the way; a row redone says so.
fault_kill_between_commit_and_publish() {
  local kills kill
  kills=$(sized 5 20)
  users=$(sized 40 100)
  rate=$((rate * 2))
  nodes_up
  load_over $((kills * 3))
  for ((kill = 0; kill < kills; kill++)); do
    sleep "1.$((RANDOM % 10))"
    if [ $((kill % 2)) = 0 ]; then
      kill -STOP "$redis_pid"
      sleep 0.3
    fi
    kill_now "${node_pid[a]}"
    kill -CONT "$redis_pid"
    node_up a
  done
  judge
  echo "   rows found unpublished and published then: $(redone)"
  expect "$(redone)" gt 0 'no kill hit between a commit and its publication'
}

fault_node_and_redis_killed() {
  nodes_up
  load_over 5
  kill_now "${node_pid[a]}" "$redis_pid"
  sleep 1
  redis_up
  node_up a
  judge
  expect "$(count resyncs)" gt 0 'nobody was told that the logs are gone'
}

# Mostly large messages in large groups, and little patience: the kernel's buffers take in a lot before a node notices. In the
# short form each of a few users gets more than these buffers hold, some 4 MB.
fault_stalled_receivers() {
  users=$(sized 20 1000)
  group_size=$(sized 20 40)
  groups=$((users / group_size))
  pairs=$groups
  local stalled
  stalled=$(sized 5 100)
  rate=$(sized 150 400)
  node_env=(SEND_QUEUE_BYTES=$(sized 131072 32768) WRITE_TIMEOUT_SECONDS=3)
  nodes_up
  # They stop reading after a quarter of the time.
  load "$(sized 18 40)" --content-bytes 3500 --stalled-receivers "$stalled" --stall-seconds "$(sized 13 20)"
  judge
  local closed=0 node
  for node in a b; do
    closed=$((closed + $(metric $node 'parley_closes_total.*(slow_consumer|write_timeout)')))
  done
  echo "   sockets closed for not reading: $closed of $stalled"
  expect "$closed" gt 0 'no socket was closed for not reading'
}

# Every other client comes from an address that loses all packets, both ways, for longer than the heartbeat allows.
fault_half_open() {
  local vanished=0 node
  network_up
  # From in there PostgreSQL can't be reached; history over REST is compared all the same.
  compare_url=''
  node_env=(HEARTBEAT_SECONDS=2 HEARTBEAT_TIMEOUT_SECONDS=2)
  nodes_up "$net_here"
  driver_through=(ip netns exec "$net_name")
  load_over "$(sized 14 45)" --source "$net_there_1" --source "$net_there_2"
  network_lose
  sleep "$(sized 7 20)"
  for node in a b; do vanished=$((vanished + $(metric $node 'parley_closes_total.*heartbeat_timeout'))); done
  sleep "$(sized 4 15)"
  network_mend
  judge
  echo "   half-open sockets that the nodes found: $vanished of $((users / 2))"
  expect "$vanished" ge $((users / 2)) 'the nodes did not find the half-open sockets'
  expect "$(count reconnects)" ge $((users / 2)) 'the clients did not come back'
}

fault_reconnect_herd() {
  users=$(sized 300 2000)
  pairs=$((users / 2))
  nodes_up
  load_over 5 --herd-at 3
  judge
  expect "$(count resumes)" ge "$users" 'the herd did not come back with resume'
}

# Two devices of each user, on two nodes, send the same message at the same moment.
fault_raced_temp_id() {
  nodes_up
  load_over 3 --devices 2 --raced
  judge
  # A second send that a busy node refuses for a moment is settled by the event of the first, without an answer of its own.
  expect "$(count duplicates)" ge $((($(count stored) - pairs) * 98 / 100)) 'not every second send was answered as a duplicate'
  expect "$(count acked)" eq $(($(count stored) * 2 - pairs)) 'not every send was acknowledged to both devices'
}

# The clock of node a steps, by a file that libfaketime reads, and its monotonic clock goes on as it is.
fault_clock_step() {
  local library
  library=$(find /usr/lib /usr/local/lib -name libfaketimeMT.so.1 2>/dev/null | head -n 1)
  [ -n "$library" ] || skip 'libfaketime is not installed: apt-get install libfaketime'
  nodes_up
  kill_now "${node_pid[a]}"
  echo '+0' >"$work/clock"
  node_up a LD_PRELOAD="$library" FAKETIME_TIMESTAMP_FILE="$work/clock" FAKETIME_NO_CACHE=1 DONT_FAKE_MONOTONIC=1 \
    FAKETIME_DONT_FAKE_MONOTONIC=1
  load_over 12
  clock_steps +3600
  clock_steps -3600
  echo '+0' >"$work/clock"
  soon 5 'node a was not ready after its clock was right again' is_ready "$ops_a"
  judge
}

clock_steps() {
  echo "$1" >"$work/clock"
  soon 5 "node a was still ready 5 s after its clock stepped by $1 s" is_unready "$ops_a"
  sleep 1
}

# Longer than its lease, so that the other node takes its rows; then it wakes up and goes on as if nothing was.
fault_paused_node() {
  local pause
  pause=$(sized 14 30)
  nodes_up
  load_over $((pause + 2))
  kill -STOP "${node_pid[a]}"
  sleep "$pause"
  kill -CONT "${node_pid[a]}"
  judge
  echo "   rows found unpublished and published then: $(redone)"
}

# Rows that were found unpublished and published then, by any start of either node.
redone() {
  cat "$work"/node-*.log | sed 's/\x1b\[[0-9;]*m//g' | grep 'committed but not published' | grep -oE 'rows=[0-9]+' |
    awk -F= '{ sum += $2 } END { print sum + 0 }'
}
