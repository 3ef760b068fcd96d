#!/usr/bin/env bash
# Two nodes behind HAProxy with Redis and PostgreSQL of their own, and Prometheus if it is installed, on this machine, to
# try Parley out.
#
#   deploy/two-nodes.sh [PORT]      HAProxy's port on 127.0.0.1; a free one if not given
#
# GATEWAY=<binary> uses that one instead of building; JWT_SECRET=<secret> instead of a random one. Ctrl-C stops all of it
# and removes its data.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=deploy/services.sh
. "$root/deploy/services.sh"

PATH=$PATH:/usr/sbin
require_programs 'redis-server postgresql haproxy curl' redis-server haproxy curl
port=${1:-$(free_port)}
if ! [[ $port =~ ^[0-9]{1,5}$ ]] || [ "$port" -lt 1 ] || [ "$port" -gt 65535 ]; then
  die "\"$port\" is no port" 'give a number from 1 to 65535'
fi
if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
  die "something listens on 127.0.0.1:$port already" 'give another port, or none for a free one'
fi
find_gateway
export JWT_SECRET=${JWT_SECRET:-$(random_secret)}

trap stop_all EXIT
trap 'exit 0' INT TERM
make_work_dir
start_postgres
start_redis
start_two_nodes "$port"
prometheus='not installed (apt-get install prometheus)'
if command -v prometheus >/dev/null; then
  start_prometheus "127.0.0.1:$ops_1" "127.0.0.1:$ops_2"
  prometheus="$prometheus_url  (alerts: $prometheus_url/alerts)"
fi

cat <<READY

Two nodes run behind HAProxy.
  clients connect to   ws://127.0.0.1:$port/chat/ws
  a token for alice    JWT_SECRET=$JWT_SECRET $gateway token --user alice
  metrics              http://127.0.0.1:$ops_1/metrics  http://127.0.0.1:$ops_2/metrics
  Prometheus           $prometheus
  logs                 $work/*.log
  Redis, PostgreSQL    $redis_url  $pg_url
Ctrl-C stops all of it.
READY
# Returns when one of them ends, which none should.
wait -n "${children[@]}" || true
say 'one of the processes ended by itself; the last lines of each:'
tail -n 5 "$work"/*.log
exit 1
