# Sourced by ../faults.sh: what others ask for in excess, while the oracle's users go on. Nothing of theirs may be lost,
# doubled or out of order, and what is refused must be refused soon.
# shellcheck shell=bash disable=SC2154

# The shortest answer time that is promised to others, in seconds; a debug build on a busy machine gets more.
bystander_seconds() { sized 5 1; }

# First messages to strangers at several times the capacity: each is stored or refused, none stays without an answer.
fault_strangers() {
  local seconds status=0
  seconds=$(sized 6 25)
  nodes_up
  load_over "$seconds"
  start strangers "$driver" strangers "${urls[@]:0:4}" --user-prefix s --users 200 --rate "$(sized 1500 9000)" \
    --seconds "$seconds" --drain-seconds 20 --json "$work/strangers.json"
  wait "$started" || status=$?
  forget "$started"
  expect "$status" eq 0 "first messages stayed without an answer, or connections were lost: $(grep -oE '"(unanswered|connections_lost)": *[0-9]+' "$work/strangers.json" 2>/dev/null | tr '\n' ' ')"
  echo "   first messages: $(grep -oE '"(sent|stored|stored_in_time|refused|refused_in_time)": *[0-9]+' "$work/strangers.json" | tr -d '"' | tr '\n' ' ')"
  judge
}

# A group of thousands of members who never were here, and somebody who writes into it as fast as it goes.
fault_loud_group() {
  local members messages group number codes
  members=$(sized 1500 9000)
  messages=$(sized 20 200)
  nodes_up
  load_over "$(sized 8 30)"
  group=loud-$RANDOM$RANDOM
  {
    printf '{"id": "%s", "kind": "group", "title": "loud", "members": ["loud-0"' "$group"
    for ((number = 1; number < members; number++)); do printf ', "loud-%s"' "$number"; done
    printf ']}'
  } >"$work/group.json"
  expect "$(rest_status POST conversations -H "X-User-Id: loud-0" --data-binary "@$work/group.json")" eq 201 'the group was not made'
  for ((number = 0; number < messages; number++)); do
    rest_status POST messages -H 'X-User-Id: loud-0' \
      --data "{\"conversationId\": \"$group\", \"tempId\": \"loud-$RANDOM-$number\", \"content\": \"loud\"}" >>"$work/loud.status"
    echo >>"$work/loud.status"
  done
  codes=$(sort "$work/loud.status" | uniq -c | tr -s ' \n' ' ')
  echo "   answers to the loud one:$codes"
  expect "$(grep -cE '^(201|200|429|503)$' "$work/loud.status")" eq "$messages" "the loud one got other answers:$codes"
  judge
  echo "   longest delivery of the others: $(count delivery_ms_max) ms"
  $short || expect "$(count delivery_gap_ms_max)" le 1000 'nobody got anything for more than a second, in milliseconds'
}

# rest_status METHOD PATH [CURL OPTION…]: the status of a request to node a with the API key.
rest_status() {
  local method=$1 path=$2
  shift 2
  curl -s -o /dev/null -m 30 -w '%{http_code}' -X "$method" -H "X-API-Key: $API_KEY" -H 'Content-Type: application/json' "$@" \
    "http://$host:$http_a/api/v1/$path"
}

# Clients that don't wait for answers, and whose keep-alive is shorter than the outage: what waits for the store holds up
# neither their pings nor the server's.
fault_frozen_store() {
  users=$(sized 20 60)
  pairs=$users
  groups=0
  node_env=(HEARTBEAT_SECONDS=2 HEARTBEAT_TIMEOUT_SECONDS=2)
  nodes_up
  load_over "$outage"
  postgres_stop_still
  sleep_until_since_load $((outage + 1))
  postgres_go_on
  both_ready_again
  judge
  expect "$(count reconnects)" eq 0 'clients lost their connections because the store stood still'
}

# Connections that are no sockets and never will be: they read nothing, send a body byte by byte, or half a head. Honest
# requests and sockets go on.
fault_silent_connections() {
  local try failed=0
  nodes_up
  haproxy_up
  load_over "$(sized 12 40)"
  start silent python3 -B "$root/loadtest/faults/silent.py" --connections "$(sized 600 2100)" --seconds "$(sized 10 35)" \
    "$host:$http_a" "$host:$http_b"
  sleep 2
  for ((try = 0; try < $(sized 8 30); try++)); do
    [ "$(curl -s -o /dev/null -m "$(bystander_seconds)" -w '%{http_code}' "http://$host:$http_a/openapi.json")" = 200 ] ||
      failed=$((failed + 1))
    sleep 0.5
  done
  expect "$failed" eq 0 'honest requests were not answered in time'
  judge
}
