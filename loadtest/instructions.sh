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
  row 'append of message.new: log, publication' "$(((some - none) / CALLS))"
}

# served CALLS: the instructions of a server that is asked for that many appends.
served() {
  local socket=$work/redis.sock file=$work/redis.$1
  counted "$file" redis-server --port 0 --unixsocket "$socket" --save '' --dir "$work" --hz 1 &
  server=$!
  until [ -S "$socket" ]; do sleep 0.2; done
  python3 loadtest/append.py --calls "$1" "$socket"
  wait "$server"
  server=
  total "$file"
}

main "$@"
