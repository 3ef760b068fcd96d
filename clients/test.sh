#!/usr/bin/env bash
# The tests of the clients, and the blocks of clients/README.md and the pages beside it, run as they stand in an empty folder:
#
#   GATEWAY=<binary> clients/test.sh [--short]      --short leaves out the two nodes that are killed
#
# Needs node, npm, chromium, openssl, curl, python3 with venv; with go and php it runs their blocks too. Where node is older
# than 20, a newer one is fetched from npm, into target/test-tools.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=../deploy/services.sh
. "$root/deploy/services.sh"

readonly NODE_VERSION=22.23.5 NODE_MAJOR_MIN=20
package=$root/clients/typescript
short=''
[ "${1:-}" != --short ] || short=1

PATH=$PATH:/usr/sbin
require_programs 'nodejs npm chromium openssl curl python3-venv' node npm chromium openssl curl python3
find_gateway
gateway=$(realpath "$gateway")
export GATEWAY=$gateway CHROMIUM=${CHROMIUM:-$(command -v chromium)}
trap stop_all EXIT
trap 'exit 1' INT TERM
make_work_dir

# Puts a node that is new enough in front of the PATH.
newer_node() {
  local arch tools=${CARGO_TARGET_DIR:-$root/target}/test-tools/node-$NODE_VERSION
  [ "$(node -p 'process.versions.node.split(".")[0]')" -lt "$NODE_MAJOR_MIN" ] || return 0
  case $(uname -m) in
    x86_64) arch=x64 ;;
    aarch64) arch=arm64 ;;
    *) die "node is older than $NODE_MAJOR_MIN" 'install a newer one' ;;
  esac
  mkdir -p "$tools"
  run npm --prefix "$tools" install --silent --no-audit --no-fund --ignore-scripts "node-linux-$arch@$NODE_VERSION"
  PATH=$tools/node_modules/node-linux-$arch/bin:$PATH
}

newer_node
cd "$package"
say 'parley-client: lint, types, unit tests, size, package'
run npm ci --silent --no-audit --no-fund --ignore-scripts
run npm run --silent lint
run npm run --silent typecheck
run npm run --silent test
run npm run --silent build
run npm run --silent size
run npm run --silent package:check
run npm run --silent demo:check

say "parley-client: its types are those of the gateway's documents"
database='' JWT_SECRET=$(random_secret) gateway_up dev "$gateway" dev
run npm run --silent types:check "http://127.0.0.1:$http_port"
stop "$started"

say 'parley-client: against a real node, and in Chromium'
run npm run --silent test:gateway dev
run npm run --silent test:browser
[ -n "$short" ] || run tests/two-nodes.sh

say 'the example application, in Chromium'
run npm --prefix example ci --silent --no-audit --no-fund --ignore-scripts
run npm --prefix example run --silent typecheck
run npm --prefix example run --silent build
database='' JWT_SECRET=$(random_secret) gateway_up example "$gateway" dev
run npm --prefix example run --silent test "http://127.0.0.1:$http_port"
stop "$started"

say 'clients/README.md and the pages beside it, block by block'
mkdir "$work/readme" "$work/bin"
ln -s "$gateway" "$work/bin/gateway"
PATH=$work/bin:$PATH run node scripts/readme.mjs "$work/readme"
