-- Most batches hold nothing to refuse and nothing that is known already. Those are stored without being judged first: each
-- statement counts on it, and what doesn't fit undoes them all; the batch is then parley_send's. The order of locks is the
-- same: conversations, members, messages. The node does what can be done without looking: it sorts, and numbers the
-- messages within their conversations, from 1.
-- OFFSET 0 keeps look-ups by key what they are: a plan that was made while tables were small would read them whole.

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
    OUT out_created_at timestamptz,
    OUT out_seqs bigint[],         -- by place: what stood there before; null if nothing was stored
    OUT out_revs bigint[],
    OUT out_members_versions bigint[]
) LANGUAGE plpgsql VOLATILE AS $function$
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
            WHERE l.conversation_id = p_conversations[i.place] AND l.user_id = i.user_id AND l.state = 'accepted' OFFSET 0
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

    INSERT INTO messages (id, conversation_id, seq, rev, sender_id, temp_id, kind, content, reply_to, created_at)
        SELECT i.id, p_conversations[i.place], out_seqs[i.place] + i.number, out_revs[i.place] + i.number, i.sender_id,
            i.temp_id, i.kind, i.content, i.reply_to, out_created_at
        FROM unnest(p_message_ids, p_message_places, p_numbers, p_senders, p_temp_ids, p_kinds, p_contents, p_reply_tos)
            AS i(id, place, number, sender_id, temp_id, kind, content, reply_to);
    INSERT INTO outbox (id, owner, committed_at, message_ids) VALUES (p_batch, p_owner, out_created_at, p_ids);
EXCEPTION
    WHEN SQLSTATE 'PY001' OR unique_violation THEN
        -- Nothing is left that would have to reach the disk.
        PERFORM set_config('synchronous_commit', 'off', true);
        out_seqs := NULL;
END
$function$;

-- PostgreSQL parses them anew for every statement that updates a row, and a send updates one of each.
ALTER TABLE conversations DROP CONSTRAINT conversations_kind_check, DROP CONSTRAINT conversations_visibility_check;
ALTER TABLE members DROP CONSTRAINT members_role_check, DROP CONSTRAINT members_state_check;

-- As before (0002), but what a message answers is found by its id alone: a plan that was made while tables were empty read
-- all messages of the conversation for it. The settings of the plan are those of the session, not set for each call anew.
CREATE OR REPLACE FUNCTION parley_send(
    p_batch bigint,
    p_owner text,
    p_ids bigint[],
    p_conversations text[],
    p_senders text[],
    p_temp_ids text[],
    p_kinds text[],
    p_contents text[],
    p_reply_tos bigint[]
) RETURNS TABLE (
    out_place bigint,
    out_outcome text,          -- stored, duplicate, twin (of an earlier one in the batch), or why it was refused
    out_twin bigint,           -- twin: the place of that one
    out_seq bigint,
    out_rev bigint,
    out_created_at timestamptz,
    out_members_version bigint,
    out_id bigint,             -- duplicate: the rest of the original
    out_conversation_id text,
    out_kind text,
    out_content text,
    out_reply_to bigint,
    out_edited_at timestamptz,
    out_deleted_at timestamptz
) LANGUAGE plpgsql VOLATILE AS $function$
#variable_conflict use_column
DECLARE
    v_now timestamptz;
    v_refusals text[];
BEGIN
    PERFORM 1 FROM conversations c WHERE c.id = ANY (p_conversations) ORDER BY c.id FOR NO KEY UPDATE;
    PERFORM 1 FROM members m
        WHERE (m.conversation_id, m.user_id) IN (SELECT i.c, i.u FROM unnest(p_conversations, p_senders) AS i(c, u))
        ORDER BY m.conversation_id, m.user_id FOR NO KEY UPDATE;

    -- The batch is here already: its commit was uncertain, and this is the retry.
    SELECT o.refusals INTO v_refusals FROM outbox o WHERE o.id = p_batch;
    IF FOUND THEN
        RETURN QUERY
            SELECT i.place,
                coalesce(v_refusals[i.place::int], CASE WHEN m.id = i.id THEN 'stored' ELSE 'duplicate' END),
                NULL::bigint, m.seq, m.rev, m.created_at, c.members_version, m.id, m.conversation_id, m.kind,
                m.content, m.reply_to, m.edited_at, m.deleted_at
            FROM unnest(p_ids, p_senders, p_temp_ids) WITH ORDINALITY AS i(id, sender_id, temp_id, place)
            LEFT JOIN LATERAL (
                (SELECT own.* FROM messages own WHERE own.id = i.id)
                UNION ALL
                (SELECT d.* FROM messages d WHERE d.sender_id = i.sender_id AND d.temp_id = i.temp_id AND d.id <> i.id)
                LIMIT 1
            ) m ON true
            LEFT JOIN conversations c ON c.id = m.conversation_id
            ORDER BY i.place;
        RETURN;
    END IF;

    v_now := date_trunc('milliseconds', clock_timestamp());
    RETURN QUERY
    WITH judged AS MATERIALIZED (
        SELECT i.*, c.last_seq, c.rev, c.members_version, d.id AS original,
            CASE
                WHEN d.id IS NOT NULL THEN 'duplicate'
                WHEN c.id IS NULL THEN 'not_found'
                WHEN m.state = 'banned' THEN 'banned'
                WHEN m.state IS DISTINCT FROM 'accepted' THEN 'not_member'
                WHEN c.blocked THEN 'blocked'
                WHEN i.reply_to IS NOT NULL AND r.conversation_id IS DISTINCT FROM i.conversation_id THEN 'not_found'
                ELSE 'stored'
            END AS outcome
        FROM unnest(p_ids, p_conversations, p_senders, p_temp_ids, p_kinds, p_contents, p_reply_tos)
            WITH ORDINALITY AS i(id, conversation_id, sender_id, temp_id, kind, content, reply_to, place)
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
            (id, conversation_id, seq, rev, sender_id, temp_id, kind, content, reply_to, created_at)
        SELECT f.id, f.conversation_id, f.new_seq, f.new_rev, f.sender_id, f.temp_id, f.kind, f.content, f.reply_to,
            v_now
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
        INSERT INTO outbox (id, owner, committed_at, message_ids, refusals)
        SELECT p_batch, p_owner, v_now, array_agg(f.id ORDER BY f.place),
            (SELECT array_agg(CASE WHEN j.outcome NOT IN ('stored', 'duplicate') THEN j.outcome END ORDER BY j.place)
                FROM judged j HAVING bool_or(j.outcome NOT IN ('stored', 'duplicate')))
        FROM fresh f HAVING count(*) > 0
    )
    SELECT n.place,
        CASE WHEN n.first_place <> n.place THEN 'twin' ELSE n.outcome END,
        n.first_place,
        CASE WHEN n.is_new THEN n.last_seq + n.nth ELSE d.seq END,
        CASE WHEN n.is_new THEN n.rev + n.nth ELSE d.rev END,
        coalesce(d.created_at, v_now), n.members_version,
        d.id, d.conversation_id, d.kind, d.content, d.reply_to, d.edited_at, d.deleted_at
    FROM numbered n
    LEFT JOIN messages d ON d.id = n.original
    ORDER BY n.place;
END
$function$;
