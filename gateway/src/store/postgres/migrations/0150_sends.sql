-- The first message to a user opens the direct conversation of the two, in the call and the transaction that store it.
-- And a batch waits for no conversation that another transaction holds: 50 ms at most, longer than any batch of another
-- node takes. Then it fails with 55P03, and the node has it stored without that conversation (parley_send_judged).
--
-- The earlier parley_send_plain and parley_send stay for nodes of the version before, until the last of them is replaced.

-- The direct conversations that a batch opened: conversation.created is published for them, before the messages.
ALTER TABLE outbox ADD COLUMN opened text[];

-- Locks in order: pairs, conversations, members, messages. A pair's lock keeps out whoever would open its conversation,
-- block or unblock; so a look behind the lock at conversation and blocks is the last word on both.

CREATE FUNCTION parley_lock_pairs(p_pairs text[]) RETURNS void LANGUAGE plpgsql VOLATILE AS $function$
BEGIN
    -- In order of the lock and not of the pair: two pairs may share one.
    PERFORM pg_advisory_xact_lock(l.lock) FROM (
        SELECT DISTINCT hashtextextended(i.pair, 0) AS lock FROM unnest(p_pairs) AS i(pair) ORDER BY lock
    ) l;
END
$function$;

-- Opens direct conversations that aren't there. The caller holds their pairs' locks.
CREATE FUNCTION parley_open_pairs(
    p_ids text[],
    p_pairs text[],
    p_ones text[],                 -- the two users of each; the same twice for one with themselves
    p_others text[],
    p_at timestamptz
) RETURNS void LANGUAGE plpgsql VOLATILE AS $function$
BEGIN
    INSERT INTO conversations (id, kind, pair_key, visibility, member_count, created_at, last_activity)
        SELECT i.id, 'direct', i.pair, 'private', CASE WHEN i.one = i.other THEN 1 ELSE 2 END, p_at, p_at
        FROM unnest(p_ids, p_pairs, p_ones, p_others) AS i(id, pair, one, other);
    INSERT INTO members (conversation_id, user_id, role, state)
        SELECT i.id, i.one, 'member', 'accepted' FROM unnest(p_ids, p_ones) AS i(id, one)
        UNION ALL
        SELECT i.id, i.other, 'member', 'accepted' FROM unnest(p_ids, p_ones, p_others) AS i(id, one, other)
        WHERE i.other <> i.one;
END
$function$;

-- What the earlier function of that name does, with three differences: messages have data, there is a limit on waiting, and
-- an undone batch leaves synchronous_commit alone. That setting would have held for the transaction, and so for whatever
-- else it stores.
CREATE FUNCTION parley_send_plain(
    p_batch bigint,
    p_owner text,
    p_ids bigint[],                -- of the messages, in the order of their arrival
    p_conversations text[],        -- each once, in order of id; a "place" is one's place here
    p_counts bigint[],             -- how many messages it gets
    p_member_places bigint[],      -- senders, in order of conversation and id
    p_members text[],
    p_lasts bigint[],              -- the number of the sender's last message
    p_leads bigint[],              -- up to which number no message is another's; 0 if the first is
    p_message_ids bigint[],        -- messages, in order of sender and temp_id
    p_message_places bigint[],
    p_numbers bigint[],
    p_senders text[],
    p_temp_ids text[],
    p_kinds text[],
    p_contents text[],
    p_reply_tos bigint[],          -- null if none answers another
    p_data text[],                 -- null if none has data
    OUT out_created_at timestamptz,
    OUT out_seqs bigint[],         -- by place: what stood there before; null if nothing was stored
    OUT out_revs bigint[],
    OUT out_members_versions bigint[]
) LANGUAGE plpgsql VOLATILE SET lock_timeout = '50ms' AS $function$
#variable_conflict use_column
DECLARE
    v_rows tid[];
    v_count bigint;
BEGIN
    SELECT array_agg(c.row_id), array_agg(c.last_seq), array_agg(c.rev), array_agg(c.members_version)
        INTO v_rows, out_seqs, out_revs, out_members_versions
        FROM (
            SELECT l.ctid AS row_id, l.last_seq, l.rev, l.members_version FROM conversations l
            WHERE l.id = ANY (p_conversations) AND NOT l.blocked ORDER BY l.id FOR NO KEY UPDATE
        ) c;
    IF cardinality(v_rows) IS DISTINCT FROM cardinality(p_conversations) THEN
        RAISE SQLSTATE 'PY001';
    END IF;

    out_created_at := date_trunc('milliseconds', clock_timestamp());
    -- A row that is locked stays in its place.
    UPDATE conversations c SET last_seq = c.last_seq + i.count, rev = c.rev + i.count, last_activity = out_created_at
        FROM unnest(v_rows, p_counts) AS i(row_id, count) WHERE c.ctid = i.row_id;
    -- A sender has seen what came before; read it only if nothing of another lies between.
    UPDATE members m SET
            seen_seq = greatest(m.seen_seq, out_seqs[i.place] + i.last),
            read_seq = m.read_seq + CASE WHEN m.read_seq = out_seqs[i.place] THEN i.lead ELSE 0 END,
            delivered_seq = m.delivered_seq + CASE WHEN m.delivered_seq = out_seqs[i.place] THEN i.lead ELSE 0 END
        FROM unnest(p_member_places, p_members, p_lasts, p_leads) AS i(place, user_id, last, lead)
        CROSS JOIN LATERAL (
            SELECT l.ctid AS row_id FROM members l
            WHERE l.conversation_id = p_conversations[i.place] AND l.user_id = i.user_id AND l.state = 'accepted'
                AND (l.muted_until IS NULL OR l.muted_until <= out_created_at) OFFSET 0
        ) l
        WHERE m.ctid = l.row_id;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    IF v_count <> cardinality(p_members) THEN
        RAISE SQLSTATE 'PY001';
    END IF;
    IF p_reply_tos IS NOT NULL THEN
        PERFORM 1 FROM unnest(p_reply_tos, p_message_places) AS i(reply_to, place)
            WHERE i.reply_to IS NOT NULL AND p_conversations[i.place] IS DISTINCT FROM
                (SELECT r.conversation_id FROM messages r WHERE r.id = i.reply_to);
        IF FOUND THEN
            RAISE SQLSTATE 'PY001';
        END IF;
    END IF;

    INSERT INTO messages (id, conversation_id, seq, rev, sender_id, temp_id, kind, content, reply_to, data, created_at)
        SELECT i.id, p_conversations[i.place], out_seqs[i.place] + i.number, out_revs[i.place] + i.number, i.sender_id,
            i.temp_id, i.kind, i.content, i.reply_to, i.data, out_created_at
        FROM unnest(p_message_ids, p_message_places, p_numbers, p_senders, p_temp_ids, p_kinds, p_contents, p_reply_tos,
            p_data) AS i(id, place, number, sender_id, temp_id, kind, content, reply_to, data);
    INSERT INTO outbox (id, owner, committed_at, message_ids) VALUES (p_batch, p_owner, out_created_at, p_ids);
EXCEPTION
    WHEN SQLSTATE 'PY001' OR unique_violation THEN
        out_seqs := NULL;
END
$function$;

-- parley_send_plain for a batch with messages to users: it resolves these names first. All else is as there: the first
-- places are those of conversations, in order of id; the last ones those of pairs, in order of key, for each of which
-- p_conversations holds the id under which it may be opened.
CREATE FUNCTION parley_send_first(
    p_batch bigint,
    p_owner text,
    p_ids bigint[],
    p_conversations text[],
    p_counts bigint[],
    p_member_places bigint[],
    p_members text[],
    p_lasts bigint[],
    p_leads bigint[],
    p_message_ids bigint[],
    p_message_places bigint[],
    p_numbers bigint[],
    p_senders text[],
    p_temp_ids text[],
    p_kinds text[],
    p_contents text[],
    p_reply_tos bigint[],
    p_data text[],
    p_pairs text[],
    p_ones text[],
    p_others text[],
    OUT out_created_at timestamptz,
    OUT out_seqs bigint[],
    OUT out_revs bigint[],
    OUT out_members_versions bigint[],
    OUT out_conversations text[],  -- by place: the ids
    OUT out_opened text[],         -- those of them that were opened; null if none was
    OUT out_opened_at timestamptz
) LANGUAGE plpgsql VOLATILE SET lock_timeout = '50ms' AS $function$
#variable_conflict use_column
DECLARE
    v_known integer := cardinality(p_conversations) - cardinality(p_pairs);
    v_resolved text[];
    v_pairs text[];
    v_ones text[];
    v_others text[];
    v_is_blocked boolean;
    v_sorted text[];
    v_counts bigint[];
    v_places bigint[];             -- by the node's place: the place in order of id
    v_member_places bigint[];
    v_members text[];
    v_lasts bigint[];
    v_leads bigint[];
    v_message_places bigint[];
    v_seqs bigint[];
    v_revs bigint[];
    v_versions bigint[];
BEGIN
    PERFORM parley_lock_pairs(p_pairs);
    SELECT array_agg(coalesce(c.id, p_conversations[v_known + i.nth]) ORDER BY i.nth),
            array_agg(p_conversations[v_known + i.nth] ORDER BY i.nth) FILTER (WHERE c.id IS NULL),
            array_agg(i.pair ORDER BY i.nth) FILTER (WHERE c.id IS NULL),
            array_agg(i.one ORDER BY i.nth) FILTER (WHERE c.id IS NULL),
            array_agg(i.other ORDER BY i.nth) FILTER (WHERE c.id IS NULL)
        INTO v_resolved, out_opened, v_pairs, v_ones, v_others
        FROM unnest(p_pairs, p_ones, p_others) WITH ORDINALITY AS i(pair, one, other, nth)
        LEFT JOIN conversations c ON c.pair_key = i.pair;
    out_conversations := p_conversations[1:v_known] || v_resolved;
    IF out_opened IS NOT NULL THEN
        SELECT bool_or(
                EXISTS (SELECT 1 FROM blocks b WHERE b.blocker = i.one AND b.blocked = i.other OFFSET 0)
                OR EXISTS (SELECT 1 FROM blocks b WHERE b.blocker = i.other AND b.blocked = i.one OFFSET 0))
            INTO v_is_blocked FROM unnest(v_ones, v_others) AS i(one, other);
        IF v_is_blocked THEN
            RAISE SQLSTATE 'PY001';
        END IF;
        out_opened_at := date_trunc('milliseconds', clock_timestamp());
        PERFORM parley_open_pairs(out_opened, v_pairs, v_ones, v_others, out_opened_at);
    END IF;

    SELECT array_agg(s.id ORDER BY s.sorted), array_agg(s.count ORDER BY s.sorted), array_agg(s.sorted ORDER BY s.place)
        INTO v_sorted, v_counts, v_places
        FROM (
            SELECT i.*, row_number() OVER (ORDER BY i.id COLLATE "C", i.place) AS sorted
            FROM unnest(out_conversations, p_counts) WITH ORDINALITY AS i(id, count, place)
        ) s;
    SELECT array_agg(m.sorted ORDER BY m.sorted, m.user_id COLLATE "C"),
            array_agg(m.user_id ORDER BY m.sorted, m.user_id COLLATE "C"),
            array_agg(m.last ORDER BY m.sorted, m.user_id COLLATE "C"),
            array_agg(m.lead ORDER BY m.sorted, m.user_id COLLATE "C")
        INTO v_member_places, v_members, v_lasts, v_leads
        FROM (
            SELECT v_places[i.place] AS sorted, i.user_id, i.last, i.lead
            FROM unnest(p_member_places, p_members, p_lasts, p_leads) AS i(place, user_id, last, lead)
        ) m;
    SELECT array_agg(v_places[i.place] ORDER BY i.nth) INTO v_message_places
        FROM unnest(p_message_places) WITH ORDINALITY AS i(place, nth);

    SELECT s.out_created_at, s.out_seqs, s.out_revs, s.out_members_versions
        INTO out_created_at, v_seqs, v_revs, v_versions
        FROM parley_send_plain(p_batch, p_owner, p_ids, v_sorted, v_counts, v_member_places, v_members, v_lasts, v_leads,
            p_message_ids, v_message_places, p_numbers, p_senders, p_temp_ids, p_kinds, p_contents, p_reply_tos,
            p_data) s;
    -- A conversation that the batch names twice, by its id and by a user, is found here: it has one row.
    IF v_seqs IS NULL THEN
        RAISE SQLSTATE 'PY001';
    END IF;
    SELECT array_agg(v_seqs[i.sorted] ORDER BY i.place), array_agg(v_revs[i.sorted] ORDER BY i.place),
            array_agg(v_versions[i.sorted] ORDER BY i.place)
        INTO out_seqs, out_revs, out_members_versions
        FROM unnest(v_places) WITH ORDINALITY AS i(sorted, place);
    IF out_opened IS NOT NULL THEN
        UPDATE outbox SET opened = out_opened WHERE id = p_batch;
    END IF;
EXCEPTION
    WHEN SQLSTATE 'PY001' OR unique_violation THEN
        out_seqs := NULL;
END
$function$;

-- What parley_send does, for messages to users too. A conversation that the batch names by its id and by a user is one:
-- names are resolved before messages are numbered.
--
-- With p_wait_ms it waits so long for each lock. Without, it passes over what another transaction holds: all messages of
-- that conversation are busy, so that they keep their order.
CREATE FUNCTION parley_send_judged(
    p_batch bigint,
    p_owner text,
    p_ids bigint[],
    p_conversations text[],        -- the message's conversation; of a message to a user, the id under which to open one
    p_pairs text[],                -- the pair of a message to a user; null of any other
    p_others text[],               -- that user
    p_senders text[],
    p_temp_ids text[],
    p_kinds text[],
    p_contents text[],
    p_reply_tos bigint[],
    p_data text[],
    p_wait_ms integer,
    p_held text[]                  -- conversations and pairs that are busy whether they are locked or not
) RETURNS TABLE (
    out_place bigint,
    out_outcome text,              -- stored, duplicate, twin (of an earlier one in the batch), busy, or why it was refused
    out_twin bigint,               -- twin: the place of that one
    out_seq bigint,
    out_rev bigint,
    out_created_at timestamptz,
    out_members_version bigint,
    out_target text,               -- the conversation that the message's name stands for, if there is one
    out_opened_at timestamptz,     -- when the batch opened it, if it did
    out_id bigint,                 -- duplicate: the rest of the original
    out_conversation_id text,
    out_kind text,
    out_content text,
    out_reply_to bigint,
    out_edited_at timestamptz,
    out_deleted_at timestamptz,
    out_reactions text,
    out_data text
) LANGUAGE plpgsql VOLATILE AS $function$
#variable_conflict use_column
DECLARE
    v_now timestamptz;
    v_refusals text[];
    v_targets text[];              -- by place: the conversation; null for a pair that has none
    v_busy text[] := p_held;
    v_got text[];                  -- the conversations that are locked here
    v_rows text[];                 -- the senders' rows that are locked here
    v_opened text[];
    v_pairs text[];
    v_ones text[];
    v_others text[];
BEGIN
    -- Whoever holds a used temp_id or the batch's own row commits within a moment.
    PERFORM set_config('lock_timeout', coalesce(p_wait_ms, 1000)::text, true);
    IF p_wait_ms IS NULL THEN
        SELECT p_held || coalesce(array_agg(l.pair), '{}') INTO v_busy
            FROM (
                SELECT DISTINCT i.pair FROM unnest(p_pairs) AS i(pair)
                WHERE i.pair IS NOT NULL AND i.pair <> ALL (p_held) ORDER BY i.pair
            ) l
            WHERE NOT pg_try_advisory_xact_lock(hashtextextended(l.pair, 0));
    ELSE
        PERFORM parley_lock_pairs(array_remove(p_pairs, NULL));
    END IF;
    SELECT array_agg(CASE WHEN i.pair IS NULL THEN i.id ELSE c.id END ORDER BY i.place) INTO v_targets
        FROM unnest(p_conversations, p_pairs) WITH ORDINALITY AS i(id, pair, place)
        LEFT JOIN conversations c ON c.pair_key = i.pair;
    IF p_wait_ms IS NULL THEN
        SELECT coalesce(array_agg(l.id), '{}') INTO v_got
            FROM (
                SELECT c.id FROM conversations c
                WHERE c.id = ANY (v_targets) AND c.id <> ALL (v_busy) AND (c.pair_key = ANY (v_busy)) IS NOT TRUE
                ORDER BY c.id FOR NO KEY UPDATE SKIP LOCKED
            ) l;
        SELECT coalesce(array_agg(l.row), '{}') INTO v_rows
            FROM (
                SELECT m.conversation_id || '/' || m.user_id AS row FROM members m
                WHERE (m.conversation_id, m.user_id) IN (SELECT i.c, i.u FROM unnest(v_targets, p_senders) AS i(c, u))
                ORDER BY m.conversation_id, m.user_id FOR NO KEY UPDATE SKIP LOCKED
            ) l;
        SELECT coalesce(array_agg(g.id), '{}') INTO v_got
            FROM unnest(v_got) AS g(id)
            WHERE g.id NOT IN (
                SELECT m.conversation_id FROM unnest(v_targets, p_senders) AS i(c, u)
                JOIN members m ON m.conversation_id = i.c AND m.user_id = i.u
                WHERE m.conversation_id || '/' || m.user_id <> ALL (v_rows));
    ELSE
        SELECT coalesce(array_agg(l.id), '{}') INTO v_got
            FROM (SELECT c.id FROM conversations c WHERE c.id = ANY (v_targets) ORDER BY c.id FOR NO KEY UPDATE) l;
        PERFORM 1 FROM members m
            WHERE (m.conversation_id, m.user_id) IN (SELECT i.c, i.u FROM unnest(v_targets, p_senders) AS i(c, u))
            ORDER BY m.conversation_id, m.user_id FOR NO KEY UPDATE;
    END IF;

    -- The batch is here already: its commit was uncertain, and this is the retry.
    SELECT o.refusals, coalesce(o.opened, '{}') INTO v_refusals, v_opened FROM outbox o WHERE o.id = p_batch;
    IF FOUND THEN
        RETURN QUERY
            SELECT i.place,
                coalesce(v_refusals[i.place::int], CASE WHEN m.id = i.id THEN 'stored' ELSE 'duplicate' END),
                NULL::bigint, m.seq, m.rev, m.created_at, c.members_version, i.target,
                CASE WHEN t.id = ANY (v_opened) THEN t.created_at END,
                m.id, m.conversation_id, m.kind, m.content, m.reply_to, m.edited_at, m.deleted_at, m.reactions, m.data
            FROM unnest(p_ids, p_senders, p_temp_ids, v_targets) WITH ORDINALITY
                AS i(id, sender_id, temp_id, target, place)
            LEFT JOIN LATERAL (
                (SELECT own.* FROM messages own WHERE own.id = i.id)
                UNION ALL
                (SELECT d.* FROM messages d WHERE d.sender_id = i.sender_id AND d.temp_id = i.temp_id AND d.id <> i.id)
                LIMIT 1
            ) m ON true
            LEFT JOIN conversations c ON c.id = m.conversation_id
            LEFT JOIN conversations t ON t.id = i.target
            ORDER BY i.place;
        RETURN;
    END IF;

    v_now := date_trunc('milliseconds', clock_timestamp());
    -- Pairs without a conversation get one if a message to them is going to be stored.
    SELECT array_agg(f.id), array_agg(f.pair), array_agg(f.one), array_agg(f.other)
        INTO v_opened, v_pairs, v_ones, v_others
        FROM (
            SELECT DISTINCT ON (i.pair) i.id, i.pair, i.one, i.other
            FROM unnest(p_conversations, p_pairs, p_senders, p_others, p_temp_ids, p_reply_tos, v_targets) WITH ORDINALITY
                AS i(id, pair, one, other, temp_id, reply_to, target, place)
            WHERE i.pair IS NOT NULL AND i.target IS NULL AND i.reply_to IS NULL AND i.pair <> ALL (v_busy)
                AND NOT EXISTS (SELECT 1 FROM messages d WHERE d.sender_id = i.one AND d.temp_id = i.temp_id OFFSET 0)
                AND NOT EXISTS (SELECT 1 FROM blocks b WHERE b.blocker = i.one AND b.blocked = i.other OFFSET 0)
                AND NOT EXISTS (SELECT 1 FROM blocks b WHERE b.blocker = i.other AND b.blocked = i.one OFFSET 0)
            ORDER BY i.pair, i.place
        ) f;
    IF v_opened IS NOT NULL THEN
        PERFORM parley_open_pairs(v_opened, v_pairs, v_ones, v_others, v_now);
        v_got := v_got || v_opened;
        SELECT array_agg(coalesce(i.target, v_opened[array_position(v_pairs, i.pair)]) ORDER BY i.place) INTO v_targets
            FROM unnest(v_targets, p_pairs) WITH ORDINALITY AS i(target, pair, place);
    END IF;

    RETURN QUERY
    WITH judged AS MATERIALIZED (
        SELECT i.*, c.last_seq, c.rev, c.members_version, d.id AS original,
            CASE
                WHEN d.id IS NOT NULL THEN 'duplicate'
                WHEN CASE WHEN c.id IS NULL THEN i.pair = ANY (v_busy) ELSE c.id <> ALL (v_got) END THEN 'busy'
                WHEN c.id IS NULL AND (
                    EXISTS (SELECT 1 FROM blocks b WHERE b.blocker = i.sender_id AND b.blocked = i.other OFFSET 0)
                    OR EXISTS (SELECT 1 FROM blocks b WHERE b.blocker = i.other AND b.blocked = i.sender_id OFFSET 0))
                    THEN 'blocked'
                WHEN c.id IS NULL THEN 'not_found'
                WHEN m.state = 'banned' THEN 'banned'
                WHEN m.state IS DISTINCT FROM 'accepted' THEN 'not_member'
                WHEN m.muted_until > v_now THEN 'muted'
                WHEN c.blocked THEN 'blocked'
                WHEN i.reply_to IS NOT NULL AND r.conversation_id IS DISTINCT FROM i.conversation_id THEN 'not_found'
                ELSE 'stored'
            END AS outcome
        FROM unnest(p_ids, v_targets, p_pairs, p_others, p_senders, p_temp_ids, p_kinds, p_contents, p_reply_tos, p_data)
            WITH ORDINALITY
            AS i(id, conversation_id, pair, other, sender_id, temp_id, kind, content, reply_to, data, place)
        LEFT JOIN conversations c ON c.id = i.conversation_id
        LEFT JOIN members m ON m.conversation_id = i.conversation_id AND m.user_id = i.sender_id
        LEFT JOIN messages d ON d.sender_id = i.sender_id AND d.temp_id = i.temp_id
        LEFT JOIN messages r ON r.id = i.reply_to
    ), paired AS MATERIALIZED (
        -- Of several with one temp_id in the batch the first is stored.
        SELECT j.*,
            CASE WHEN j.outcome = 'stored' AND j.temp_id IS NOT NULL
                THEN min(j.place) OVER (PARTITION BY j.outcome, j.sender_id, j.temp_id)
                ELSE j.place END AS first_place
        FROM judged j
    ), numbered AS MATERIALIZED (
        SELECT p.*, p.outcome = 'stored' AND p.first_place = p.place AS is_new,
            row_number() OVER arrivals AS nth, first_value(p.sender_id) OVER arrivals AS first_sender
        FROM paired p
        WINDOW arrivals AS (
            PARTITION BY p.conversation_id, p.outcome = 'stored' AND p.first_place = p.place ORDER BY p.place)
    ), fresh AS MATERIALIZED (
        -- foreign_seq: the first message by another than the first one's sender.
        SELECT n.*, n.last_seq + n.nth AS new_seq, n.rev + n.nth AS new_rev,
            min(n.last_seq + n.nth) FILTER (WHERE n.sender_id <> n.first_sender)
                OVER (PARTITION BY n.conversation_id) AS foreign_seq
        FROM numbered n WHERE n.is_new
    ), insert_messages AS (
        INSERT INTO messages
            (id, conversation_id, seq, rev, sender_id, temp_id, kind, content, reply_to, data, created_at)
        SELECT f.id, f.conversation_id, f.new_seq, f.new_rev, f.sender_id, f.temp_id, f.kind, f.content, f.reply_to,
            f.data, v_now
        FROM fresh f ORDER BY f.sender_id COLLATE "C", f.temp_id COLLATE "C", f.place
    ), update_conversations AS (
        UPDATE conversations c SET last_seq = v.new_seq, rev = v.new_rev, last_activity = v_now
        FROM (
            SELECT f.conversation_id, max(f.new_seq) AS new_seq, max(f.new_rev) AS new_rev
            FROM fresh f GROUP BY f.conversation_id
        ) v WHERE c.id = v.conversation_id
    ), update_members AS (
        -- A sender has seen what came before; read it only if nothing of another lies between.
        UPDATE members m SET
            seen_seq = greatest(m.seen_seq, s.new_seq),
            read_seq = CASE WHEN s.leads AND m.read_seq = s.old_seq THEN s.lead_end ELSE m.read_seq END,
            delivered_seq = CASE WHEN s.leads AND m.delivered_seq = s.old_seq THEN s.lead_end ELSE m.delivered_seq END
        FROM (
            SELECT f.conversation_id, f.sender_id, max(f.new_seq) AS new_seq, min(f.last_seq) AS old_seq,
                bool_and(f.sender_id = f.first_sender) AS leads,
                coalesce(min(f.foreign_seq) - 1, max(f.new_seq)) AS lead_end
            FROM fresh f GROUP BY f.conversation_id, f.sender_id
        ) s WHERE m.conversation_id = s.conversation_id AND m.user_id = s.sender_id
    ), insert_outbox AS (
        INSERT INTO outbox (id, owner, committed_at, message_ids, refusals, opened)
        SELECT p_batch, p_owner, v_now, array_agg(f.id ORDER BY f.place),
            (SELECT array_agg(CASE WHEN j.outcome NOT IN ('stored', 'duplicate') THEN j.outcome END ORDER BY j.place)
                FROM judged j HAVING bool_or(j.outcome NOT IN ('stored', 'duplicate'))),
            v_opened
        FROM fresh f HAVING count(*) > 0
    )
    SELECT n.place,
        CASE WHEN n.first_place <> n.place THEN 'twin' ELSE n.outcome END,
        n.first_place,
        CASE WHEN n.is_new THEN n.last_seq + n.nth ELSE d.seq END,
        CASE WHEN n.is_new THEN n.rev + n.nth ELSE d.rev END,
        coalesce(d.created_at, v_now), n.members_version, n.conversation_id,
        CASE WHEN n.conversation_id = ANY (v_opened) THEN v_now END,
        d.id, d.conversation_id, d.kind, d.content, d.reply_to, d.edited_at, d.deleted_at, d.reactions, d.data
    FROM numbered n
    LEFT JOIN messages d ON d.id = n.original
    ORDER BY n.place;
END
$function$;
