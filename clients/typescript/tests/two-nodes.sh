#!/usr/bin/env bash
# Clients in Node and pages in Chromium on two nodes behind HAProxy, while nodes, Redis and PostgreSQL are killed and frozen:
#
#   GATEWAY=<binary> tests/two-nodes.sh      SECONDS_OF_LOAD=<n> for longer than each fault once
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
# shellcheck source=../../../deploy/services.sh
. "$root/deploy/services.sh"

PATH=$PATH:/usr/sbin
require_programs 'redis-server postgresql haproxy curl nodejs chromium procps' \
  redis-server redis-cli haproxy curl node chromium pgrep
find_gateway
JWT_SECRET=$(random_secret)
API_KEY=$(random_secret)
export JWT_SECRET API_KEY
trap stop_all EXIT
trap 'exit 1' INT TERM
make_work_dir
start_postgres fsync=off
redis_port=$(free_port)
start_redis "$redis_port"
redis_pid=$started
port=$(free_port)
page_port=$(free_port)
export ALLOWED_ORIGINS=http://127.0.0.1:$page_port
before=("${children[@]}")
start_two_nodes "$port"
node_1=${children[${#before[@]}]} node_2=${children[$((${#before[@]} + 1))]}

# PostgreSQL ends without a word to anybody, and recovers.
declare -f as_postgres >"$work/restart-postgres"
printf '%q ' as_postgres "$pg_bin/pg_ctl" -D "$pg_data" -l "$pg_data/log" -m immediate -w -t 60 -o "$pg_options" restart \
  >>"$work/restart-postgres"

export GATEWAY=$gateway DATABASE_URL=$database REDIS_URL=$redis_url
URL=http://127.0.0.1:$port REDIS_PID=$redis_pid NODE_1_PID=$node_1 NODE_2_PID=$node_2 REDIS_PORT=$redis_port \
  NODE_1=$GATEWAY_1 NODE_1_OPS=$ops_1 NODE_2=$GATEWAY_2 NODE_2_OPS=$ops_2 \
  PAGE_PORT=$page_port POSTGRES_PID_FILE=$pg_data/postmaster.pid POSTGRES_RESTART=$work/restart-postgres \
  CHROMIUM=${CHROMIUM:-$(command -v chromium)} \
  run node "$root/clients/typescript/scripts/test.mjs" gateway two-nodes
