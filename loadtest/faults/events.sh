# Sourced by ../faults.sh: with --events, a backend hears of every change over the events webhook, whatever happens to the nodes.
# Afterwards what it took is compared with what is stored.
# shellcheck shell=bash disable=SC2034,SC2154

# Settings of the nodes, NAME=VALUE; none without --events.
events_env=()
# So long after the load the nodes may take to deliver what they owe: the lease of a dead node, a failure's wait, and room.
readonly EVENTS_SECONDS_MAX=90

# The backend, which itself is never harmed.
events_up() {
  $events || return 0
  local port
  port=$(free_port)
  export WEBHOOK_SECRET
  WEBHOOK_SECRET=$(random_secret)
  start events python3 -B "$root/loadtest/receiver.py" listen "$port" "$work/events.jsonl"
  wait_for 20 events answers 204 "http://127.0.0.1:$port/"
  events_env=(EVENTS_WEBHOOK_URL="http://127.0.0.1:$port/events" WEBHOOK_SECRET="$WEBHOOK_SECRET")
}

events_sql() { as_postgres "$pg_bin/psql" -XAtq -F $'\t' "$database" -c "$1"; }

# Every committed message came, in order for its conversation, again only under the same id.
judge_events() {
  $events || return 0
  local end=$((SECONDS + EVENTS_SECONDS_MAX)) owed=''
  until owed=$(events_sql 'SELECT count(*) FROM webhook_events WHERE delivered_at IS NULL') && [ "$owed" = 0 ]; do
    if [ "$SECONDS" -ge "$end" ]; then
      object "${owed:-unknown many} events were still owed after $EVENTS_SECONDS_MAX s"
      break
    fi
    sleep 0.5
  done
  expect "$(events_sql 'SELECT count(*) FROM webhook_dead')" eq 0 'events of the webhook are dead'
  events_sql 'SELECT id, conversation_id FROM messages' >"$work/stored"
  python3 -B "$root/loadtest/receiver.py" judge "$work/events.jsonl" <"$work/stored" >"$work/events.verdict" ||
    object 'what came over the events webhook is not what is stored'
  sed 's/^/   /' "$work/events.verdict"
}
