#!/usr/bin/env bash
# Drives every REST route from the gateway's own OpenAPI document with Schemathesis: no answer may be a server's fault, and
# every status and body must be one that the document names. Twice: as a user with a token, and as a backend that acts
# for a user.
#
#   deploy/schemathesis.sh          300 cases an operation, other ones in each run
#   deploy/schemathesis.sh --short  10, the same ones in each run
#
# Starts `gateway dev` for itself, on free loopback ports. Schemathesis and the OpenAPI validator come from PyPI into
# target/test-tools.
#
#   GATEWAY    the binary (default target/debug/gateway)
#   CASES      cases an operation
#   WORKERS    requests at the same time (default 1: with more of them, Python 3.11 sometimes fails in its own parser with
#              "AST constructor recursion depth mismatch")
#   SEED       the random seed; it is printed
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
# shellcheck source=deploy/services.sh
. "$root/deploy/services.sh"

readonly SCHEMATHESIS_VERSION=4.32.5
readonly VALIDATOR_VERSION=0.9.0
target=${CARGO_TARGET_DIR:-$root/target}
[[ $target = /* ]] || target=$root/$target
GATEWAY=${GATEWAY:-$target/debug/gateway}
venv=$target/test-tools/schemathesis-$SCHEMATHESIS_VERSION
CASES=${CASES:-300}
SEED=${SEED:-$RANDOM}
[ "${1:-}" != --short ] || CASES=10 SEED=1
WORKERS=${WORKERS:-1}

main() {
  trap stop_all EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  [ -x "$GATEWAY" ] || die "there is no $GATEWAY" 'cargo build -p gateway, or set GATEWAY'
  install
  make_work_dir
  start_node
  run curl --fail --silent --show-error --output "$work/openapi.json" "$url/openapi.json"
  run "$venv/bin/openapi-spec-validator" --schema 3.1 "$work/openapi.json"

  local failed=()
  say "as a user, $CASES cases an operation, seed $SEED"
  drive -H "Authorization: Bearer $token" || failed+=('as a user')
  say "as a backend, $CASES cases an operation, seed $SEED"
  drive -H "X-API-Key: $API_KEY" -H 'X-User-Id: backend-user' || failed+=('as a backend')
  if grep -E ' (ERROR|WARN) ' "$work/gateway.log"; then
    failed+=('the gateway complained, see above')
  fi
  [ ${#failed[@]} = 0 ] || die "failed: ${failed[*]}"
}

install() {
  [ -x "$venv/bin/schemathesis" ] && [ -x "$venv/bin/openapi-spec-validator" ] || {
    run python3 -m venv "$venv" &&
      run "$venv/bin/pip" install --quiet --disable-pip-version-check \
        "schemathesis==$SCHEMATHESIS_VERSION" "openapi-spec-validator==$VALIDATOR_VERSION"
  }
}

# Limits on rates are off: thousands of requests come from one user.
start_node() {
  export JWT_SECRET API_KEY
  JWT_SECRET=$(random_secret)
  API_KEY=$(random_secret)
  gateway_up gateway USER_COMMANDS_PER_SECOND=0 "$GATEWAY" dev
  url=http://127.0.0.1:$http_port
  token=$("$GATEWAY" token --user fuzzed-user)
}

# Schemathesis keeps what it found in the working directory.
drive() {
  run env -C "$work" "$venv/bin/schemathesis" --config-file "$root/deploy/schemathesis.toml" \
    run "$work/openapi.json" --url "$url" \
    --max-examples "$CASES" --workers "$WORKERS" --seed "$SEED" --request-timeout 40 --no-color "$@"
}

main "$@"
