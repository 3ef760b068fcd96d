# Sourced by ../faults.sh: PostgreSQL that stands still or dies. It is shared by all faults.
# shellcheck shell=bash disable=SC2154

# Each connection has a process. The postmaster first, so that no connection is served by a new process.
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

# Dies without a checkpoint, as by loss of power of its machine but for what the disk has.
postgres_crash() { as_postgres "$pg_bin/pg_ctl" -D "$pg_data_of_all" -m immediate -w stop >/dev/null; }

postgres_back() {
  as_postgres "$pg_bin/pg_ctl" -D "$pg_data_of_all" -l "$pg_data_of_all/log" -w -t 60 -o "$pg_options" start >/dev/null
}
