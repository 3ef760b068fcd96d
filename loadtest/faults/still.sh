# Sourced by ../faults.sh: PostgreSQL that stands still. SIGSTOP to one process doesn't do: it is one per connection.
# shellcheck shell=bash disable=SC2154

# The postmaster first, so that no connection is served by a new process.
postgres_stop_still() {
  local postmaster
  postmaster=$(head -n 1 "$pg_data_of_all/postmaster.pid")
  kill -STOP "$postmaster"
  ps -o pid= --ppid "$postmaster" | xargs kill -STOP
  touch "$results/postgres-is-still"
}

postgres_go_on() {
  local postmaster
  [ -e "$results/postgres-is-still" ] || return 0
  rm "$results/postgres-is-still"
  postmaster=$(head -n 1 "$pg_data_of_all/postmaster.pid")
  { ps -o pid= --ppid "$postmaster"; echo "$postmaster"; } | xargs kill -CONT
}
