# Sourced by ../faults.sh: the servers of one fault, the load on them, and the line that it leaves in the table.
# Runs in a subshell per fault, which starts with nothing of its own running; PostgreSQL is shared, its database isn't.
# shellcheck shell=bash disable=SC2034,SC2154

# The load: direct conversations (as many as users if not said), groups (one for twenty users), users who have a stream of
# server-sent events beside their socket (one in four), messages a second. A fault sets its own before `load`; $users and $rate
# come from the sizes.
pairs=''
streams=''
groups=''
group_size=10
# Settings of the nodes beyond the rig's own, NAME=VALUE.
node_env=()
# Where clients connect, and the REST interface; `nodes_up` and `haproxy_up` set them.
urls=()
# Process ids of the nodes, by letter.
declare -A node_pid=()
# The driver's process id, and what it is started through (a network namespace).
driver_pid=''
driver_through=()
# What the verdict must show besides a clean run, as explanations of what it doesn't.
objections=()

# The servers of one fault, each on a port that it keeps over restarts.
servers_up() {
  work=$work/$fault
  mkdir "$work"
  chmod 755 "$work"
  new_database "$fault"
  compare_url=$database
  redis_port=$(free_port)
  redis_up
  events_up
}

redis_up() {
  start_redis "$redis_port"
  redis_pid=$started
}

# nodes_up [HOST]: nodes a and b, where clients reach both; HOST is where they listen.
nodes_up() {
  host=${1:-127.0.0.1}
  local node
  for node in a b; do
    declare -g "http_$node=$(free_port)" "ops_$node=$(free_port)"
  done
  node_up a
  node_up b
  urls=(--url "ws://$host:$http_a" --url "ws://$host:$http_b" --http "http://$host:$http_a" --http "http://$host:$http_b")
}

# node_up LETTER [NAME=VALUE…]: starts it, with these settings beside $node_env, and waits until it is ready.
node_up() {
  local node=$1 http=http_$1 ops=ops_$1
  shift
  cat "$work/node-$node.log" >>"$work/node-$node.earlier.log" 2>/dev/null || true
  gateway_up "node-$node" HTTP_HOST="$host" HTTP_PORT="${!http}" OPS_PORT="${!ops}" DRAIN_DELAY_SECONDS="$drain_delay" \
    DRAIN_SECONDS="$drain" ${events_env[@]+"${events_env[@]}"} ${node_env[@]+"${node_env[@]}"} "$@"
  node_pid[$node]=$started
}

# kill_now PID…: SIGKILL to each and everything that it started, all within the same moment.
kill_now() {
  local pid groups=()
  for pid in "$@"; do groups+=("-$pid"); done
  kill -KILL -- "${groups[@]}"
  for pid in "$@"; do
    wait "$pid" 2>/dev/null || true
    forget "$pid"
  done
}

# drain_node LETTER: SIGTERM, and it must end by itself with exit code 0.
drain_node() {
  local pid=${node_pid[$1]} status=0
  kill -TERM "$pid"
  wait "$pid" || status=$?
  forget "$pid"
  [ "$status" = 0 ] || object "node $1 ended with exit code $status after SIGTERM"
}

# Clients connect to HAProxy from here on.
haproxy_up() {
  local port
  port=$(free_port)
  export PARLEY_BIND=127.0.0.1:$port
  export GATEWAY_1=127.0.0.1:$http_a GATEWAY_1_OPS=$ops_a GATEWAY_2=127.0.0.1:$http_b GATEWAY_2_OPS=$ops_b
  start haproxy haproxy -db -f "$root/deploy/haproxy.cfg"
  wait_for 10 haproxy answers 400 "http://127.0.0.1:$port/chat/ws"
  urls=(--url "ws://127.0.0.1:$port" --http "http://127.0.0.1:$port")
}

# load SECONDS [OPTION…]: starts the driver and waits until messages flow.
load() {
  local seconds=$1
  shift
  pairs=${pairs:-$users}
  start driver ${driver_through[@]+"${driver_through[@]}"} "$driver" oracle "${urls[@]}" --users "$users" \
    --streams "${streams:-$((users / 4))}" --pairs "$pairs" --groups "${groups:-$((users / 20))}" --group-size "$group_size" --rate "$rate" \
    --seconds "$seconds" --settle-seconds "$settle" --seed "$seed" --token-seconds 86400 ${compare_url:+--database-url "$compare_url"} \
    --json "$work/verdict.json" "$@"
  driver_pid=$started
  # A second of load beyond what opens the direct conversations.
  wait_for 90 driver has_messages $((pairs + rate))
  load_flows=$SECONDS
}

# Until so many seconds after the load began to flow.
sleep_until_since_load() {
  local left=$((load_flows + $1 - SECONDS))
  [ "$left" -le 0 ] || sleep "$left"
}

has_messages() {
  [ "$("$pg_bin/psql" -XAtq "$database" -c 'SELECT coalesce(sum(last_seq), 0) FROM conversations')" -ge "$1" ]
}

# soon SECONDS EXPLANATION COMMAND…: it succeeds within so many seconds.
soon() {
  local tenths=$(($1 * 10)) explanation=$2
  shift 2
  until "$@"; do
    tenths=$((tenths - 1))
    if [ "$tenths" = 0 ]; then
      object "$explanation"
      return
    fi
    sleep 0.1
  done
}

is_ready() { answers 200 "http://127.0.0.1:$1/readyz"; }
is_unready() { answers 503 "http://127.0.0.1:$1/readyz"; }

# metric LETTER NAME: the sum over its labels; NAME may be a pattern. 0 if the node can't be asked.
metric() {
  local ops=ops_$1
  curl -s -m 2 "http://127.0.0.1:${!ops}/metrics" | awk -v name="^$2" '$0 ~ name { sum += $NF } END { print sum + 0 }'
}

# expect NUMBER OPERATOR NUMBER EXPLANATION: that the fault took place at all, or a promise beside the oracle's.
expect() {
  test "$1" "-$2" "$3" || object "$4 ($1, expected $2 $3)"
}

object() { objections+=("$1"); }

# Waits for the driver and writes the fault's line. Returns 1 if anything is wrong.
judge() {
  local status=0
  wait "$driver_pid" || status=$?
  forget "$driver_pid"
  if [ ! -s "$work/verdict.json" ]; then
    tail -n 20 "$work/driver.log" >&2
    object "the driver gave no verdict (exit code $status)"
  else
    [ "$status" = 0 ] || object "the oracle found violations (exit code $status)"
    expect "$(count acked)" gt 0 'nothing was acknowledged'
    expect "$(count stream_deliveries)" gt 0 'nothing came over a stream'
    expect "$(count unread_stored)" gt 0 'nothing was unread in the end, so the counts show nothing'
    expect "$(count unsettled)" eq 0 'sends were neither acknowledged nor refused'
    expect "$(count refused)" eq 0 'sends were refused for good'
    expect "$(count stopped)" eq 0 'clients were told to stop'
    expect "$(count malformed)" eq 0 'frames were malformed'
  fi
  judge_events
}

# count NAME…: the sum of these numbers of the verdict.
count() {
  local name sum=0 value
  for name in "$@"; do
    value=$(grep -oE "\"$name\": *[0-9]+" "$work/verdict.json" 2>/dev/null | grep -oE '[0-9]+$' || true)
    sum=$((sum + ${value:-0}))
  done
  echo "$sum"
}

# The fault's line as JSON, one field a line, into $results/FAULT.json.
write_line() {
  local passed=true objection
  [ ${#objections[@]} = 0 ] || passed=false
  {
    printf '{"fault": "%s", "seed": %s, "passed": %s' "$fault" "$seed" "$passed"
    printf ', "acked": %s' "$(count acked)"
    printf ', "lost": %s' "$(count lost_ack undelivered)"
    printf ', "doubled": %s' "$(count doubled double_stored)"
    printf ', "outOfOrder": %s' "$(count log_disorder log_disagrees store_disorder resume_mismatch)"
    printf ', "holes": %s' "$(count log_gap silent_hole resync_missing)"
    printf ', "wrong": %s' "$(count ack_mismatch phantom history_disagrees)"
    printf ', "counts": %s' "$(count wrong_count)"
    printf ', "resumes": %s' "$(count resumes)"
    printf ', "resyncs": %s' "$(count resyncs)"
    printf ', "longestGapMs": %s' "$(count delivery_gap_ms_max)"
    printf ', "seconds": %s}\n' "$SECONDS"
  } >"$results/$fault.json"
  for objection in ${objections[@]+"${objections[@]}"}; do echo "   NOT AS IT MUST BE: $objection"; done
  [ "$passed" = true ] || sed 's/^/   /' "$work/driver.log" | tail -n 60
  [ "$passed" = true ]
}
