-- The whole schema of the first release. What changes later stands in a file of its own, with a higher number. Ids are
-- compared byte by byte, so that every node locks rows in the same order. Words (kind, role, state, visibility) have no
-- CHECK: PostgreSQL would parse it anew for every statement that updates a row, and a send updates rows of two tables.
-- The gateway writes no others.

CREATE TABLE conversations (
    id text COLLATE "C" PRIMARY KEY,
    kind text NOT NULL,                -- direct, group, channel
    -- Direct conversations only: both user ids in order, joined by '/', which no id holds.
    pair_key text COLLATE "C" UNIQUE,
    title text,
    visibility text NOT NULL,          -- public, private
    password_hash text,
    -- Direct conversations only: one of the two has blocked the other.
    blocked boolean NOT NULL DEFAULT false,
    last_seq bigint NOT NULL DEFAULT 0,
    rev bigint NOT NULL DEFAULT 0,
    members_version bigint NOT NULL DEFAULT 1,
    member_count bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    -- Not indexed, so that the update of every commit stays in its page (HOT).
    last_activity timestamptz NOT NULL,
    -- The newest message when somebody last came or went: every later message was for the members of now.
    members_seq bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 80);

CREATE TABLE members (
    conversation_id text COLLATE "C" NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    user_id text COLLATE "C" NOT NULL,
    role text NOT NULL,                -- member, admin, owner
    state text NOT NULL,               -- accepted, invited, banned, left
    read_seq bigint NOT NULL DEFAULT 0,
    seen_seq bigint NOT NULL DEFAULT 0,
    delivered_seq bigint NOT NULL DEFAULT 0,
    joined_seq bigint NOT NULL DEFAULT 0,
    left_seq bigint,
    PRIMARY KEY (conversation_id, user_id)
) WITH (fillfactor = 80);
CREATE INDEX members_by_user ON members (user_id, conversation_id) WHERE state = 'accepted';

-- Earlier stays of users who came back; the last stay stands in members. A message that is published late goes to the
-- members of the time of its commit (NOLOSS.md, Medium). A stay saw the messages after joined_seq up to left_seq. A
-- stay without messages is not kept.
CREATE TABLE past_members (
    conversation_id text COLLATE "C" NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    user_id text COLLATE "C" NOT NULL,
    joined_seq bigint NOT NULL,
    left_seq bigint NOT NULL,
    PRIMARY KEY (conversation_id, user_id, left_seq)
);

-- No foreign key to conversations: a send holds the conversation's row lock, and the check would cost a look-up per
-- row.
CREATE TABLE messages (
    id bigint PRIMARY KEY,
    conversation_id text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    rev bigint NOT NULL,
    sender_id text COLLATE "C" NOT NULL,
    temp_id text COLLATE "C",
    kind text NOT NULL,
    content text NOT NULL,
    reply_to bigint,
    created_at timestamptz NOT NULL,
    edited_at timestamptz,
    deleted_at timestamptz,
    -- JSON: an object of arrays of user ids by emoji; null without any. In the message's own row, because a message is
    -- never read without its reactions, and they are bounded.
    reactions text,
    UNIQUE (conversation_id, seq)
);
CREATE UNIQUE INDEX messages_by_temp_id ON messages (sender_id, temp_id) WHERE temp_id IS NOT NULL;
CREATE INDEX messages_by_rev ON messages (conversation_id, rev);

-- The earlier contents of edited messages. They are deleted with the message.
CREATE TABLE edits (
    message_id bigint NOT NULL REFERENCES messages (id) ON DELETE CASCADE,
    rev bigint NOT NULL,               -- the message's rev while it had this content
    content text NOT NULL,
    replaced_at timestamptz NOT NULL,
    PRIMARY KEY (message_id, rev)
);

CREATE TABLE blocks (
    blocker text COLLATE "C" NOT NULL,
    blocked text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (blocker, blocked)
);

CREATE TABLE users (
    id text COLLATE "C" PRIMARY KEY,
    last_seen timestamptz
);

-- The user who last came with a name.
CREATE TABLE usernames (
    username text COLLATE "C" PRIMARY KEY,
    user_id text COLLATE "C" NOT NULL
);
-- For events that tell a user's name.
CREATE INDEX usernames_by_user ON usernames (user_id, username);

-- Users whose tokens are revoked if they were issued up to that second (unix time).
CREATE TABLE revocations (
    user_id text COLLATE "C" PRIMARY KEY,
    revoked_s bigint NOT NULL
);

-- Durable notifications, one row per user. The transaction that writes the outbox row of their event writes them too.
CREATE TABLE notifications (
    user_id text COLLATE "C" NOT NULL,
    id bigint NOT NULL,
    -- The payload of the event: JSON, an object. Text, because JSON columns refuse some valid events.
    payload text NOT NULL,
    created_at timestamptz NOT NULL,
    read_at timestamptz,
    PRIMARY KEY (user_id, id)
);
CREATE INDEX notifications_by_time ON notifications (user_id, created_at, id);
CREATE INDEX notifications_unread ON notifications (user_id) WHERE read_at IS NULL;

CREATE TABLE outbox (
    id bigint PRIMARY KEY,
    owner text NOT NULL,
    committed_at timestamptz NOT NULL,
    -- Messages of a batch, in commit order.
    message_ids bigint[] NOT NULL DEFAULT '{}',
    -- Why messages of the batch were refused, by place; null if none was.
    refusals text[],
    -- The other durable events: JSON, an array of OutboxEvent.
    events text NOT NULL DEFAULT '[]',
    published_at timestamptz,
    -- The backbone server that it was published under.
    server text
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
CREATE INDEX outbox_due ON outbox (committed_at, id) WHERE published_at IS NULL;
CREATE INDEX outbox_published ON outbox (published_at) WHERE published_at IS NOT NULL;

CREATE TABLE leases (
    owner text PRIMARY KEY,
    beaten_at timestamptz NOT NULL
);

CREATE TABLE backbone (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    server text NOT NULL
);

-- Backbone servers that a node has left for another. A row that is published under one of them stays unpublished: its
-- publisher is cut off together with that server (NOLOSS.md, A2).
CREATE TABLE retired_backbones (
    server text COLLATE "C" PRIMARY KEY,
    retired_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE id_blocks (
    name text PRIMARY KEY,
    next bigint NOT NULL
);
INSERT INTO id_blocks VALUES ('all', 1);

CREATE TABLE audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    kind text NOT NULL,
    user_id text,
    conversation_id text,
    connection_id text,
    detail text
);
CREATE INDEX audit_by_time ON audit (at);

-- The group commit: one call, one transaction, one round trip. Most batches contain no duplicate and nothing to refuse.
-- parley_send_plain stores those without judging them: each of its statements assumes a plain batch, and a wrong count
-- or a violated unique index rolls them all back. parley_send then judges every message of the batch.
--
-- Both lock in the same order: conversations, members, messages. Each statement of a volatile function sees all commits
-- from before it began, so the statements after the locks work on the newest state. Plans are made under the session's
-- settings (postgres/pool.rs).
--
-- The node prepares what needs no look at the tables: it sorts the messages, and numbers them within their
-- conversations, from 1. OFFSET 0 keeps a look-up by key: a plan that was made while tables were small would read them
-- whole.

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

CREATE FUNCTION parley_send(
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

-- In an empty database all indexes of a table look alike. Until the server analyzes the tables, within a minute of the
-- first users, every look-up of a conversation's members would read the whole index of members by user. So the tables
-- are filled with sample rows, analyzed and emptied again; the server keeps how selective the columns are.
INSERT INTO conversations (id, kind, visibility, member_count, created_at, last_activity)
    SELECT 'shown-' || n, 'direct', 'private', 2, now(), now() FROM generate_series(1, 200) n;
INSERT INTO members (conversation_id, user_id, role, state)
    SELECT 'shown-' || n, 'shown-' || u, 'member', 'accepted' FROM generate_series(1, 200) n, generate_series(n, n + 1) u;
ANALYZE conversations, members;
-- Unlike DELETE, TRUNCATE leaves no dead rows, for which the server would analyze the empty tables. In a subtransaction
-- it gives the tables new files, which count as never analyzed: the planner then expects some rows in them, and not
-- none.
SAVEPOINT filled;
TRUNCATE conversations, members, past_members;
RELEASE SAVEPOINT filled;
