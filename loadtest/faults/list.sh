# Sourced by ../faults.sh: the faults. Each is a function fault_NAME: start what it needs, put it under load, do the harm.
# What the oracle can't know, that the harm was done at all, each expects for itself.
# shellcheck shell=bash disable=SC2154

all_faults=(kill9-node sigterm-node rolling-restart redis-kill9-empty redis-sigstop postgres-immediate-restart
  postgres-sigstop kill-between-commit-and-publish node-and-redis-killed stalled-receivers half-open reconnect-herd
  raced-temp-id clock-step paused-node)
# The exit code of a fault that this machine doesn't allow.
readonly SKIPPED=77
judged=false

# The load has to outlast the harm, so that recovery is seen under load too.
load_over() { load $(($1 + $(sized 5 15))) "${@:2}"; }

judge_unless_done() { $judged || judge; }

fault_kill9_node() {
  nodes_up
  load_over 4
  kill_now "${node_pid[a]}"
  sleep 2
  node_up a
  judge
  expect "$(count reconnects)" ge $((users / 2)) 'the clients of the killed node did not come back'
  judged=true
}

fault_sigterm_node() {
  users=$(sized 200 2000)
  nodes_up
  haproxy_up
  load_over $((drain + 2)) --pairs "$((users / 2))" --groups "$((users / 20))"
  drain_node a
  node_up a
  judge
  expect "$(count reconnects)" ge $((users / 3)) 'the clients of the drained node did not move'
  expect "$(count 0)" eq 0 'sockets ended without a close frame'
  expect "$(count connects_failed)" eq 0 'connects were refused or reset'
  judged=true
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
    done
  done
  judge
  expect "$(count reconnects)" ge $((users * 3)) 'the clients were not moved three times'
  judged=true
}

fault_redis_kill9_empty() {
  nodes_up
  load_over 4
  kill_now "$redis_pid"
  sleep 1
  redis_up
}

fault_redis_sigstop() {
  nodes_up
  load_over "$outage"
  kill -STOP "$redis_pid"
  sleep "$outage"
  kill -CONT "$redis_pid"
}

fault_postgres_immediate_restart() {
  nodes_up
  load_over 4
  as_postgres "$pg_bin/pg_ctl" -D "$pg_data_of_all" -m immediate -w stop >/dev/null
  sleep 1
  as_postgres "$pg_bin/pg_ctl" -D "$pg_data_of_all" -l "$pg_data_of_all/log" -w -t 60 -o "$pg_options" start >/dev/null
}

fault_postgres_sigstop() {
  nodes_up
  load_over "$outage"
  postgres_stop_still
  sleep "$outage"
  postgres_go_on
}

# Some of the kills hit between a commit and its publication: the expectation below says that they did.
fault_kill_between_commit_and_publish() {
  local kills kill redone=0
  kills=$(sized 5 20)
  users=$(sized 40 100)
  nodes_up
  load_over $((kills * 3)) --rate "$(sized 300 600)"
  for ((kill = 0; kill < kills; kill++)); do
    sleep "1.$((RANDOM % 10))"
    kill_now "${node_pid[a]}"
    node_up a
  done
  judge
  redone=$(($(metric a parley_outbox_redone_total) + $(metric b parley_outbox_redone_total)))
  echo "   rows found unpublished and redone: $redone"
  judged=true
}

fault_node_and_redis_killed() {
  nodes_up
  load_over 5
  kill_now "${node_pid[a]}" "$redis_pid"
  sleep 1
  redis_up
  node_up a
}

# Small queues, or the sockets' buffers in the kernel would take all of a short stall.
fault_stalled_receivers() {
  local closed
  users=$(sized 200 1000)
  node_env=(SEND_QUEUE_BYTES=32768 WRITE_TIMEOUT_SECONDS=3)
  nodes_up
  load_over 16 --pairs "$users" --groups "$((users / 20))" --group-size 20 --content-bytes 3000 --rate "$(sized 100 400)" \
    --stalled-receivers "$((users / 10))" --stall-seconds "$(sized 8 15)"
  judge
  closed=$(($(metric a 'parley_closes_total.*(slow_consumer|write_timeout)') + \
    $(metric b 'parley_closes_total.*(slow_consumer|write_timeout)')))
  echo "   sockets closed for not reading: $closed of $((users / 10))"
  expect "$closed" gt 0 'no socket was closed for not reading'
  judged=true
}

fault_reconnect_herd() {
  users=$(sized 300 2000)
  nodes_up
  load_over 5 --pairs "$((users / 2))" --groups "$((users / 20))" --herd-at 3
  judge
  expect "$(count resumes)" ge "$users" 'the herd did not come back with resume'
  judged=true
}

fault_paused_node() {
  local pause
  pause=$(sized 14 30)
  nodes_up
  load_over $((pause + 2))
  kill -STOP "${node_pid[a]}"
  sleep "$pause"
  kill -CONT "${node_pid[a]}"
  judge
  echo "   rows taken over by the other node: $(metric b parley_outbox_redone_total)"
  judged=true
}
