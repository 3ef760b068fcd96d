#!/usr/bin/env bash
# What storing a message costs beside the least that could be done: the group commit of a batch, and a bulk insert of the
# same rows into the same table with the same indexes, in turn, on the same PostgreSQL:
#
#   loadtest/store.sh [--seconds N] [--lanes N] [--json FILE] [BATCH…]
#
# BATCH: messages per batch (10, 50 and 200 unless given); --lanes: batches in flight (2: two nodes); --json:
# where the medians of the last batch size go as well.
# Prints rows a second and PostgreSQL's CPU per row of both, and their ratio. Needs redis-server and postgresql with
# pgbench; GATEWAY and LOADTEST name binaries instead of building them.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
PATH=$PATH:/usr/sbin
# shellcheck source=deploy/services.sh
. deploy/services.sh

seconds=6 lanes=2 json='' batches=()
while [ $# -gt 0 ]; do
  case $1 in
    --seconds) seconds=$2; shift ;;
    --lanes) lanes=$2; shift ;;
    --json) json=$2; shift ;;
    *[!0-9]*) die "\"$1\" is no number of messages" 'usage: loadtest/store.sh [--seconds N] [--lanes N] [--json FILE] [BATCH…]' ;;
    *) batches+=("$1") ;;
  esac
  shift
done
[ ${#batches[@]} -gt 0 ] || batches=(10 50 200)

main() {
  trap stop_all EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  find_gateway_and_driver
  make_work_dir
  export JWT_SECRET API_KEY
  JWT_SECRET=$(random_secret) API_KEY=$(random_secret)
  start_postgres fsync=on
  # What nodes set in their sessions (gateway/src/store/postgres/pool.rs).
  export PGOPTIONS='-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off
    -c enable_bitmapscan=off -c enable_material=off -c enable_memoize=off -c jit=off'
  start_redis
  conversations
  local batch
  printf '%-8s %14s %14s %16s %16s %8s\n' batch 'commits/s' 'inserts/s' 'us a row (CPU)' 'of an insert' ratio
  for batch in "${batches[@]}"; do
    found=()
    for _ in 1 2 3; do one "$batch"; done
  done
  [ -z "$json" ] || medians >"$json"
}

# Of each column over the rounds of one batch size.
medians() {
  printf '%s\n' "${found[@]}" | python3 -c '
import json, statistics, sys
names = "stored_per_second", "inserted_per_second", "commit_cpu_us", "insert_cpu_us"
rounds = [list(map(float, line.split())) for line in sys.stdin]
print(json.dumps({**dict(zip(names, map(statistics.median, zip(*rounds)))),
                  "ratio": statistics.median(row[0] / row[1] for row in rounds)}))'
}

# The tables, and five hundred conversations of two in them, made by a node.
conversations() {
  local node
  gateway_up gateway COMMANDS_PER_SECOND=0 USER_COMMANDS_PER_SECOND=0
  node=$started
  run "$driver" user-to-user --url "ws://127.0.0.1:$http_port" --users 1000 --rate 500 --seconds 3 >/dev/null
  stop "$node"
  sql <<'SQL'
CREATE SEQUENCE bench_ids START 1000000000000;
CREATE TABLE bench_pairs AS
  SELECT row_number() OVER (ORDER BY conversation_id) AS n, conversation_id AS c, min(user_id) AS u
  FROM members GROUP BY conversation_id;
CREATE INDEX ON bench_pairs (n);
ANALYZE;

-- The same rows for both: k messages, each in a conversation of its own, in order of id.
CREATE FUNCTION bench_rows(k int, OUT ids bigint[], OUT cs text[], OUT us text[], OUT ts text[], OUT places bigint[], OUT ones bigint[])
LANGUAGE sql AS $$
  SELECT array_agg(nextval('bench_ids')), array_agg(c ORDER BY n), array_agg(u ORDER BY n), array_agg('t' || nextval('bench_ids')),
    array_agg(n - f.first::bigint ORDER BY n), array_fill(1::bigint, ARRAY[k])
  FROM bench_pairs, (SELECT floor(random() * (count(*) - k + 1)) AS first FROM bench_pairs) f
  WHERE n > f.first AND n <= f.first + k
$$;
-- What a node asks for such a batch.
CREATE FUNCTION bench_commit(k int) RETURNS bigint LANGUAGE sql AS $$
  SELECT cardinality(s.out_seqs) FROM bench_rows(k) r, parley_send_plain(nextval('bench_ids'), 'bench:1', r.ids,
    r.cs, r.ones, r.places, r.us, r.ones, r.ones, r.ids, r.places, r.ones, r.us, r.ts,
    array_fill('text'::text, ARRAY[k]), array_fill(repeat('x', 200), ARRAY[k]), NULL, NULL) s
$$;
CREATE FUNCTION bench_insert(k int) RETURNS void LANGUAGE sql AS $$
  INSERT INTO messages (id, conversation_id, seq, rev, sender_id, temp_id, kind, content, created_at)
  SELECT i.id, i.c, i.id, i.id, i.u, i.t, 'text', repeat('x', 200), clock_timestamp()
  FROM bench_rows(k) r, unnest(r.ids, r.cs, r.us, r.ts) AS i(id, c, u, t)
$$;
SQL
  [ "$(sql <<<'SELECT bench_commit(10)')" = 10 ] || die 'a batch of ten did not store ten' "what PostgreSQL says: $work/postgres/log"
}

sql() { as_postgres "$pg_bin/psql" -qAtX -v ON_ERROR_STOP=1 "$pg_url"; }

# one BATCH: both, one after the other.
one() {
  local commits inserts commit_cpu insert_cpu
  measured bench_commit "$1"
  commits=$rows_per_second commit_cpu=$cpu_us_per_row
  measured bench_insert "$1"
  inserts=$rows_per_second insert_cpu=$cpu_us_per_row
  found+=("$commits $inserts $commit_cpu $insert_cpu")
  awk -v b="$1" -v c="$commits" -v i="$inserts" -v cc="$commit_cpu" -v ic="$insert_cpu" \
    'BEGIN { printf "%-8s %14.0f %14.0f %16.0f %16.0f %8.2f\n", b, c, i, cc, ic, c / i }'
}

# measured FUNCTION BATCH: sets $rows_per_second and $cpu_us_per_row.
measured() {
  local before after tps
  echo "SELECT $1($2);" >"$work/bench.sql"
  chmod 644 "$work/bench.sql"
  before=$(cpu_of_postgres "$pg_data")
  tps=$(as_postgres "$pg_bin/pgbench" -n -M prepared -c "$lanes" -T "$seconds" -f "$work/bench.sql" "$pg_url" 2>"$work/pgbench.log" |
    sed -n 's/^tps = \([0-9.]*\).*/\1/p' || true)
  after=$(cpu_of_postgres "$pg_data")
  [ -n "$tps" ] || { tail -n 3 "$work/pgbench.log" >&2; die "pgbench could not run $1" "its last lines stand above"; }
  rows_per_second=$(awk -v t="$tps" -v k="$2" 'BEGIN { print t * k }')
  cpu_us_per_row=$(awk -v c="$((after - before))" -v r="$rows_per_second" -v s="$seconds" 'BEGIN { print c * 10000 / (r * s) }')
}

main
