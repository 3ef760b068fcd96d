#!/usr/bin/env bash
# Runs the Autobahn test suite's fuzzing client against the gateway's WebSocket code (gateway/examples/echo.rs).
#
#   deploy/autobahn.sh
#
# All 517 cases, those of permessage-deflate (12.* and 13.*) included. It fails unless at least OK_MIN cases are OK, every
# other one is INFORMATIONAL, and every close is clean too. One exception: 13.3.* and 13.5.* offer nothing but a server's
# window of 9 bits. The gateway declines that (shared/PROTOCOL.md), which the suite calls UNIMPLEMENTED.
#
#   ECHO_BIN   an echo server to test instead of building one
#   CASES      cases to run (csv, default *); OK_MIN then is 1
#   OUT        where the reports go (default target/autobahn)
#   AB_HOME    where the suite is installed (default target/autobahn-suite)
#   PY27       a CPython 2.7, which the suite needs (default: the newest under ~/.pyenv/versions)
set -euo pipefail
cd "$(dirname "$0")/.."

CASES=${CASES:-*}
[ "$CASES" = '*' ] && OK_MIN=${OK_MIN:-478} || OK_MIN=${OK_MIN:-1}
TARGET=${CARGO_TARGET_DIR:-$PWD/target}
OUT=${OUT:-$TARGET/autobahn}
AB_HOME=${AB_HOME:-$TARGET/autobahn-suite}

install_suite() {
  local py27=${PY27:-$(ls -d ~/.pyenv/versions/2.7*/bin/python2.7 2>/dev/null | tail -1)}
  [ -x "$py27" ] || { echo "autobahn: no CPython 2.7 (set PY27)" >&2; exit 2; }
  mkdir -p "$AB_HOME"
  # The last virtualenv that still makes environments for Python 2.
  python3 -m venv "$AB_HOME/boot"
  "$AB_HOME/boot/bin/pip" -q install 'virtualenv<20.22'
  "$AB_HOME/boot/bin/virtualenv" -q -p "$py27" "$AB_HOME/py27"
  # In this order: the older setup scripts import what they need before pip could resolve it.
  local packages
  while read -r packages; do
    # shellcheck disable=SC2086 # a line is several packages
    "$AB_HOME/py27/bin/pip" -q install --no-python-version-warning $packages
  done <<'PACKAGES'
incremental==16.10.1 txaio==2.1.0 zope.interface==4.6.0 six==1.16.0 markupsafe==1.1.1 jinja2==2.11.3 Werkzeug==1.0.1 unittest2==1.1.0
cryptography==3.3.2 pyOpenSSL==19.1.0 service_identity==18.1.0
Twisted==19.10.0 klein==17.10.0 autobahn[twisted,accelerate]==0.10.9
--no-deps autobahntestsuite==25.10.1
PACKAGES
}

[ -x "$AB_HOME/py27/bin/wstest" ] || install_suite

if [ -z "${ECHO_BIN:-}" ]; then
  # Unoptimized is fast enough for every case, and has the overflow checks on.
  cargo build -p gateway --example echo
  ECHO_BIN=$TARGET/debug/examples/echo
fi

mkdir -p "$OUT"
rm -f "$OUT/index.json"
coproc ECHO_SERVER { exec "$ECHO_BIN"; }
trap 'kill "${ECHO_SERVER_PID:-}" 2>/dev/null || true' EXIT
# The server prints its address, host:port, as its first line.
read -r -t 10 address <&"${ECHO_SERVER[0]:-}" || { echo "autobahn: the echo server did not start" >&2; exit 2; }

python3 - "ws://$address" "$OUT" "$CASES" >"$OUT/fuzzingclient.json" <<'PYTHON'
import json, sys
url, out, cases = sys.argv[1:]
json.dump({"outdir": out, "servers": [{"agent": "gateway", "url": url}], "cases": cases.split(","),
           "exclude-cases": [], "exclude-agent-cases": {}}, sys.stdout)
PYTHON
"$AB_HOME/py27/bin/wstest" -m fuzzingclient -s "$OUT/fuzzingclient.json" >"$OUT/wstest.log" 2>&1 || {
  tail -20 "$OUT/wstest.log" >&2
  exit 2
}

python3 - "$OUT/index.json" "$OK_MIN" <<'PYTHON'
import collections, json, sys
cases = json.load(open(sys.argv[1]))["gateway"]
ok_min = int(sys.argv[2])
counts = collections.Counter(case["behavior"] for case in cases.values())

def allowed(name):
    declined = {"UNIMPLEMENTED"} if name.startswith(("13.3.", "13.5.")) else set()
    return {"OK", "INFORMATIONAL"} | declined

bad = {name: (case["behavior"], case["behaviorClose"]) for name, case in sorted(cases.items())
       if not {case["behavior"], case["behaviorClose"]} <= allowed(name)}
print("autobahn:", len(cases), "cases,", ", ".join(f"{n} {name}" for name, n in sorted(counts.items())))
for name, (behavior, close) in bad.items():
    print(f"  {name}: {behavior}, close {close}")
if counts["OK"] < ok_min:
    print(f"  fewer than {ok_min} are OK")
sys.exit(bool(bad) or counts["OK"] < ok_min)
PYTHON
