#!/usr/bin/env bash
# Follows deploy/README.md to the letter on an empty Debian 12, and sees whether it ends as the page says: "Two nodes as
# services" with two nodes behind HAProxy and a Prometheus that has an answer to every query of the dashboard; "Rolling update"
# with new processes that nobody had to wait for; "Backup" with the messages of the dump.
#
#   deploy/empty-machine.sh GATEWAY
#
# GATEWAY is a binary that runs on Debian 12. The machine is a container with a systemd and a network of its own, so that the
# units run as they will, with all that they forbid. Its first commands, which install packages, run before it is booted and
# through this machine's network. Needs root, and the Debian packages mmdebstrap, systemd-container and python3; takes some
# three minutes. It isn't part of deploy/test.sh. Grafana isn't in Debian: what the page says of it is not tested.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PATH=$PATH:/usr/sbin
# shellcheck source=deploy/services.sh
. "$root/deploy/services.sh"

main() {
  [ $# = 1 ] || die 'which gateway?' 'usage: deploy/empty-machine.sh GATEWAY'
  must_be_a_program GATEWAY "$1"
  [ "$(id -u)" = 0 ] || die 'only root can boot a container' 'run it as root'
  require_programs 'mmdebstrap systemd-container python3' mmdebstrap systemd-nspawn python3
  trap 'exit 130' INT
  trap 'exit 143' TERM
  trap leave EXIT
  make_work_dir
  machine=$work/machine
  commands

  say 'an empty Debian 12'
  run mmdebstrap --quiet --variant=minbase --include=systemd-sysv,dbus bookworm "$machine"
  mkdir -p "$machine/root/parley/target/release"
  cp -a "$root/deploy" "$machine/root/parley/"
  cp "$1" "$machine/root/parley/target/release/gateway"
  cp "$work"/*.sh "$machine/root/"

  say 'the packages'
  run systemd-nspawn --quiet --directory="$machine" --register=no --keep-unit --pipe --resolv-conf=bind-host \
    --setenv=DEBIAN_FRONTEND=noninteractive bash -euo pipefail /root/packages.sh >"$work/packages.log" 2>&1 ||
    { tail -n 20 "$work/packages.log" >&2; die 'the packages could not be installed' 'the last lines stand above'; }
  boot
  follow services
  two_nodes_behind_haproxy
  dashboard
  rolling_update
  backup
  echo 'The page leads where it says.'
}

# The code of the sections. Of the first, the first block installs packages, and the others are one script.
commands() {
  local script
  awk -v out="$work" '
    /^## / { script = ""; block = 0 }
    /^## Two nodes as services$/ { script = "services" }
    /^## Rolling update$/ { script = "rolling" }
    /^## Backup$/ { script = "backup" }
    /^```sh$/ { block++; in_code = 1; next }
    /^```$/ { in_code = 0 }
    script && in_code { print > (out "/" (script == "services" && block == 1 ? "packages" : script) ".sh") }' \
    "$root/deploy/README.md"
  for script in packages services rolling backup; do
    [ -s "$work/$script.sh" ] || die "deploy/README.md has no commands for $script any more" 'see commands()'
  done
}

# follow SCRIPT: as root, in the checkout.
follow() {
  say "the page: $1"
  inside bash -euxo pipefail -c "cd /root/parley && . /root/$1.sh" >"$work/$1.log" 2>&1 ||
    { tail -n 30 "$work/$1.log"; die 'a command of the page failed' 'the last lines stand above'; }
}

boot() {
  start machine systemd-nspawn --quiet --directory="$machine" --register=no --keep-unit --private-network --boot \
    --console=pipe
  machine_pid=$started
  wait_for 60 machine inside systemctl is-system-running --wait
}

# inside COMMAND…: in the booted machine, with nothing of the caller's environment.
inside() {
  local init
  init=$(pgrep -P "$machine_pid") &&
    nsenter --target "$init" --all env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

two_nodes_behind_haproxy() {
  local unit
  for unit in redis-server postgresql parley-gateway@1 parley-gateway@2 haproxy prometheus; do
    inside systemctl is-active --quiet "$unit" || { inside journalctl -u "$unit" -n 20; die "$unit does not run"; }
    inside systemctl is-enabled --quiet "$unit" || die "$unit would not start with the machine"
  done
  inside systemctl --failed --no-legend | { ! grep .; } || die 'units have failed' 'they stand above'
  inside journalctl --no-pager -u haproxy -o cat | grep -o ' gateways/gateway-[12] 20[0-9] ' | sort | uniq -c
  [ "$(inside journalctl -u haproxy -o cat | grep -o ' gateways/gateway-[12] 20[0-9] ' | sort -u | wc -l)" = 2 ] ||
    die 'HAProxy did not send requests to both nodes'
}

# Prometheus' own page has every figure of both nodes, and every query of Grafana's dashboard, its variables filled in, is
# answered with at least one.
dashboard() {
  inside curl -sS --fail http://127.0.0.1:9090/consoles/parley.html >"$work/console.html"
  grep -q '<tr><th>nodes ready</th><td>2</td>' "$work/console.html" || die 'the page does not say that two nodes are ready'
  ! grep -n '–' "$work/console.html" || die 'figures are missing on the page' 'where, stands above'
  python3 - "$root/deploy/grafana/parley.json" >"$work/queries" <<'P'
import json, sys
def queries(value):
    if isinstance(value, dict):
        if isinstance(value.get("expr"), str):
            yield value["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*")
        for item in value.values():
            yield from queries(item)
    elif isinstance(value, list):
        for item in value:
            yield from queries(item)
print("\n".join(queries(json.load(open(sys.argv[1]))["panels"])))
P
  local query answered=0 silent=0
  while read -r query; do
    if inside curl -sS -G --data-urlencode "query=$query" http://127.0.0.1:9090/api/v1/query </dev/null | grep -q '"value":\['; then
      answered=$((answered + 1))
    else
      echo "no figure: $query"
      silent=$((silent + 1))
    fi
  done <"$work/queries"
  echo "queries of the dashboard with live figures: $answered, without: $silent"
  [ "$answered" -gt 40 ] && [ "$silent" = 0 ] || die 'the dashboard would stay empty in places'
}

# Both nodes are other processes afterwards, and whoever asked over HAProxy meanwhile was answered.
rolling_update() {
  local before after asker
  before=$(node_pids)
  start asked nsenter --target "$(pgrep -P "$machine_pid")" --net bash -c \
    'while :; do curl -s -o /dev/null -m 10 -w "%{http_code}\n" http://127.0.0.1:8080/api/v1/conversations; sleep 0.2; done'
  asker=$started
  follow rolling
  stop "$asker"
  after=$(node_pids)
  echo "node processes: $before, then $after; answers over HAProxy meanwhile: $(sort "$work/asked.log" | uniq -c | paste -sd ' ')"
  [ "$(tr ' ' '\n' <<<"$before $after" | sort -u | wc -l)" = 4 ] || die 'not every node was restarted'
  # 401: they show no token.
  [ "$(sort -u "$work/asked.log")" = 401 ] || die 'requests failed during the rolling update'
}

node_pids() { inside systemctl show --value -p MainPID parley-gateway@1 parley-gateway@2 | paste -sd ' ' | tr -s ' '; }

backup() {
  local before port
  before=$(messages)
  follow backup
  started=$machine_pid
  for port in 8087 8187; do wait_for 30 machine inside curl -s --fail "http://127.0.0.1:$port/readyz"; done
  echo "messages before and after: $before, $(messages)"
  [ "$before" -ge 60 ] && [ "$(messages)" = "$before" ] || die 'the backup has not all messages'
}

messages() { inside runuser -u postgres -- psql -XAtq parley -c 'SELECT count(*) FROM messages'; }

# The machine is switched off, not killed, so that it leaves nothing behind.
leave() {
  local status=$? init
  trap '' INT TERM
  init=$(pgrep -P "${machine_pid:-0}" || true)
  if [ -n "$init" ]; then
    kill -RTMIN+4 "$init"
    wait "$machine_pid" || true
    forget "$machine_pid"
  fi
  stop_all
  exit "$status"
}

main "$@"
