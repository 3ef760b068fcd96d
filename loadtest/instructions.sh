#!/usr/bin/env bash
# Counts the instructions of each step of a message's way through a node, under callgrind: the same on every run of a build.
#
#   loadtest/instructions.sh [STEP…]     all steps of gateway/tests/hot_path if none is named
#   loadtest/instructions.sh --redis     the script that appends an event to a user's log, in a Redis server of its own
#
# Builds the example `instructions` as a release, or takes the one that $BENCH names, and prints a table. Clock reads are
# system calls under valgrind, and count for next to nothing. Debian packages: valgrind; redis-server python3 for --redis.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

CALLS=1000
work=$(mktemp -d)
server=
trap 'if [ -n "$server" ]; then kill "$server" 2>/dev/null && wait "$server" || true; fi; rm -rf "$work"' EXIT

main() {
  if [ "${1:-}" = --redis ]; then
    redis
    return
  fi
  local bench=${BENCH:-} step steps
  if [ -z "$bench" ]; then
    bench=$(cargo build --release --workspace --example instructions --message-format=json |
      sed -n 's/.*"executable":"\([^"]*instructions\)".*/\1/p')
  fi
  mapfile -t steps < <("$bench")
  [ $# -eq 0 ] || steps=("$@")
  echo '| step | instructions |'
  echo '|---|---|'
  for step in "${steps[@]}"; do
    counted "$work/out" --toggle-collect='*measured*' "$bench" "$step" "$CALLS"
    row "$step" "$(($(total "$work/out") / CALLS))"
  done
}

# counted FILE ARGUMENT…: runs a program under callgrind.
counted() {
  local file=$1
  shift
  valgrind --tool=callgrind --callgrind-out-file="$file" "$@" >/dev/null 2>"$work/errors" ||
    { cat "$work/errors" >&2 && return 1; }
}

# total FILE: the instructions that a file of callgrind's sums up, over all of its parts.
total() {
  awk '/^(totals|summary): / { kind = $1; sum[kind] += $2 } END { print sum["totals:"] ? sum["totals:"] : sum["summary:"] }' "$1"
}

row() {
  printf "| %s | %'d |\n" "$1" "$2"
}

# What an event costs the server, its reading and answering included: the difference between many calls and none.
redis() {
  local none some
  none=$(served 0)
  some=$(served "$CALLS")
  echo '| Redis server, for each event | instructions |'
  echo '|---|---|'
  row 'append of message.new: log, unread count, publication' "$(((some - none) / CALLS))"
}

# served CALLS: the instructions of a server that is asked for that many appends.
served() {
  local socket=$work/redis.sock file=$work/redis.$1
  counted "$file" redis-server --port 0 --unixsocket "$socket" --save '' --dir "$work" --hz 1 &
  server=$!
  until [ -S "$socket" ]; do sleep 0.2; done
  appends "$socket" "$1"
  wait "$server"
  server=
  total "$file"
}

# appends SOCKET CALLS: opens a log with an unread count, appends to it, and ends the server.
appends() {
  python3 - "$@" <<'APPENDS'
import pathlib, socket, sys

lua = pathlib.Path("gateway/src/backbone/redis/lua")
# The line that gateway/src/backbone/redis/scripts.rs writes, with the settings that a node has by itself.
limits = "local MAXLEN, LONG_BYTES, LOG_BYTES, TTL = 256, 2048, 1048576, '3600'\nlocal PUBLISH, NUMSUB = 'PUBLISH', 'NUMSUB'\n"
script = limits + "".join((lua / part).read_text() for part in ("log.lua", "once.lua", "append.lua"))
server = socket.socket(socket.AF_UNIX)
server.connect(sys.argv[1])
answers = server.makefile("rb")


def ask(*words):
    words = [str(word).encode() for word in words]
    server.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))
    return answer()


def answer():
    line = answers.readline()
    if line[:1] == b"-":
        sys.exit(line.decode())
    if line[:1] == b"*":
        return [answer() for _ in range(int(line[1:]))]
    if line[:1] == b"$" and int(line[1:]) >= 0:
        return answers.read(int(line[1:]) + 2)[:-2].decode()
    return line[1:].strip().decode()


message = '{"id":"7001002","conversationId":"1002003004","seq":812,"rev":900,"senderId":"100200","kind":"text","content":"' \
    + "x" * 200 + '","tempId":"temp-1795262400007-1","createdAt":"2026-11-21T12:00:00.007Z"}'
body = '{"type":"message.new","payload":{"message":' + message + ',"to":"100201"}}\n' \
    '{"type":"conversation.updated","repeats":%d}' % len(message)
log, unread, sha = "chat:log:{chat:user:100201}", "chat:unread:{chat:user:100201}", ask("SCRIPT", "LOAD", script)
ask("XGROUP", "CREATE", log, "epoch.1", "1-0", "MKSTREAM")
ask("XSETID", log, "1-0")
ask("HSET", unread, "c:1002003004", "1 0", "total", 1)
# As many events a call as a node puts into one under load, all of one user.
EVENTS = 20
for call in range(0, int(sys.argv[2]), EVENTS):
    events = []
    for event in range(call, call + EVENTS):
        events += ["chat:user:100201", 1795262400007, f":m{7001002 + event}", body[1:], 0, "", "1002003004", event + 2, 0, 1]
    outcomes = ask("EVALSHA", sha, 2 * EVENTS, *[log, unread] * EVENTS, "nonce", 0, 0, 1795262400007, *events)
    if outcomes != ["0"] * EVENTS:
        sys.exit(f"not every event was appended: {outcomes}")
if int(ask("XLEN", log)) < min(int(sys.argv[2]), 256):
    sys.exit("not every call appended")
server.sendall(b"*2\r\n$8\r\nSHUTDOWN\r\n$6\r\nNOSAVE\r\n")
APPENDS
}

main "$@"
