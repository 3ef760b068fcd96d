-- The group commit is planned once for each connection, and looks every row up by its key: a batch is small, and the tables
-- are large or will be. Left to itself PostgreSQL planned it anew for each batch, for longer than a small one takes to carry
-- out, or read whole tables while they were still small.
ALTER FUNCTION parley_send(bigint, text, bigint[], text[], text[], text[], text[], text[], bigint[])
    SET plan_cache_mode = 'force_generic_plan'
    SET enable_seqscan = off
    SET enable_hashjoin = off
    SET enable_mergejoin = off;
