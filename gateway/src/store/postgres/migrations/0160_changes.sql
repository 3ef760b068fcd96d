-- A change of a conversation is one call of one function: no row stays locked while an answer is on its way to a node,
-- which may be slow or paused (NOLOSS.md, C5). The node reads what it decides by without locks, and decides. The function
-- looks under the lock whether that still holds. If not, it changes nothing, and the node reads and decides anew.

-- Writes the outbox row of a change, and keeps its notifications. No events, no row.
CREATE FUNCTION parley_write_row(
    p_row bigint,
    p_owner text,
    p_events text,                 -- null if there are none
    p_users text[],                -- who is to be notified, with the notification's id
    p_of bigint[],
    p_notifications bigint[],      -- each notification once
    p_payloads text[]
) RETURNS void LANGUAGE plpgsql VOLATILE AS $function$
DECLARE
    v_now timestamptz := date_trunc('milliseconds', clock_timestamp());
BEGIN
    IF p_events IS NULL THEN
        RETURN;
    END IF;
    IF cardinality(p_users) > 0 THEN
        INSERT INTO notifications (user_id, id, payload, created_at)
            SELECT u.user_id, n.id, n.payload, v_now FROM unnest(p_users, p_of) AS u(user_id, id)
            JOIN unnest(p_notifications, p_payloads) AS n(id, payload) ON n.id = u.id
            ORDER BY u.user_id COLLATE "C", n.id ON CONFLICT DO NOTHING;
    END IF;
    INSERT INTO outbox (id, owner, committed_at, events) VALUES (p_row, p_owner, v_now, p_events)
        ON CONFLICT (id) DO NOTHING;
END
$function$;

-- Edits, deletions, reactions. Returns the message's new rev; null if something was changed since it was read.
CREATE FUNCTION parley_change_message(
    p_id bigint,
    p_conversation text,
    p_rev bigint,                  -- what the decision was made by: the message's rev, the members' version, and whether
    p_members_version bigint,      -- the message is the conversation's last
    p_is_last boolean,
    p_writer text,                 -- who must not be muted; null if that doesn't matter
    p_content text,
    p_edited_at timestamptz,
    p_deleted_at timestamptz,
    p_reactions text,
    p_earlier text,                -- an earlier content to be kept; null if there is none
    p_earlier_max bigint,
    p_placeholder text,            -- stands in the events where the new rev belongs
    p_row bigint,
    p_owner text,
    p_events text,
    p_users text[],
    p_of bigint[],
    p_notifications bigint[],
    p_payloads text[]
) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $function$
DECLARE
    v_rev bigint;
    v_last_seq bigint;
    v_version bigint;
BEGIN
    SELECT c.rev + 1, c.last_seq, c.members_version INTO v_rev, v_last_seq, v_version
        FROM conversations c WHERE c.id = p_conversation FOR NO KEY UPDATE;
    -- A message is changed under its conversation's lock alone.
    PERFORM 1 FROM messages m WHERE m.id = p_id AND m.rev = p_rev AND (m.seq = v_last_seq) = p_is_last;
    IF NOT FOUND OR v_version <> p_members_version THEN
        RETURN NULL;
    END IF;
    PERFORM 1 FROM members m
        WHERE m.conversation_id = p_conversation AND m.user_id = p_writer AND m.muted_until > clock_timestamp();
    IF FOUND THEN
        RETURN NULL;
    END IF;
    UPDATE messages SET rev = v_rev, content = p_content, edited_at = p_edited_at, deleted_at = p_deleted_at,
        reactions = p_reactions, data = CASE WHEN p_deleted_at IS NULL THEN data END WHERE id = p_id;
    UPDATE conversations SET rev = v_rev WHERE id = p_conversation;
    IF p_deleted_at IS NOT NULL THEN
        DELETE FROM edits WHERE message_id = p_id;
    ELSIF p_earlier IS NOT NULL THEN
        INSERT INTO edits (message_id, rev, content, replaced_at) VALUES (p_id, p_rev, p_earlier, p_edited_at);
        DELETE FROM edits WHERE message_id = p_id AND rev < (
            SELECT e.rev FROM edits e WHERE e.message_id = p_id ORDER BY e.rev DESC OFFSET p_earlier_max - 1 LIMIT 1);
    END IF;
    PERFORM parley_write_row(p_row, p_owner, replace(p_events, p_placeholder, v_rev::text), p_users, p_of,
        p_notifications, p_payloads);
    RETURN v_rev;
END
$function$;

-- Moves members' positions. False if one of them was moved since it was read, unless p_anyway.
CREATE FUNCTION parley_move_positions(
    p_conversations text[],        -- members, in order of conversation and user
    p_members text[],
    p_old_reads bigint[],
    p_old_delivereds bigint[],
    p_reads bigint[],
    p_delivereds bigint[],
    p_anyway boolean,
    p_row bigint,
    p_owner text,
    p_events text,
    p_users text[],
    p_of bigint[],
    p_notifications bigint[],
    p_payloads text[]
) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $function$
BEGIN
    PERFORM 1 FROM members m
        WHERE (m.conversation_id, m.user_id) IN (SELECT i.c, i.u FROM unnest(p_conversations, p_members) AS i(c, u))
        ORDER BY m.conversation_id, m.user_id FOR NO KEY UPDATE;
    IF NOT p_anyway THEN
        PERFORM 1 FROM unnest(p_conversations, p_members, p_old_reads, p_old_delivereds) AS i(c, u, read, delivered)
            JOIN members m ON m.conversation_id = i.c AND m.user_id = i.u
            WHERE m.state <> 'accepted' OR m.read_seq <> i.read OR m.delivered_seq <> i.delivered;
        IF FOUND THEN
            RETURN false;
        END IF;
    END IF;
    UPDATE members m SET read_seq = greatest(m.read_seq, i.read), seen_seq = greatest(m.seen_seq, i.read),
            delivered_seq = greatest(m.delivered_seq, i.delivered)
        FROM unnest(p_conversations, p_members, p_reads, p_delivereds) AS i(c, u, read, delivered)
        WHERE m.conversation_id = i.c AND m.user_id = i.u;
    PERFORM parley_write_row(p_row, p_owner, p_events, p_users, p_of, p_notifications, p_payloads);
    RETURN true;
END
$function$;

-- Blocks or unblocks, and notes it at the direct conversation of the two, where sends look. Whether that changed anything;
-- if not, no row is written.
CREATE FUNCTION parley_set_block(
    p_pair text,
    p_blocker text,
    p_blocked text,
    p_on boolean,
    p_row bigint,
    p_owner text,
    p_events text,
    p_users text[],
    p_of bigint[],
    p_notifications bigint[],
    p_payloads text[]
) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $function$
BEGIN
    PERFORM parley_lock_pairs(ARRAY[p_pair]);
    -- The conversation's lock before anything else of it, as a send takes it.
    PERFORM 1 FROM conversations c WHERE c.pair_key = p_pair FOR NO KEY UPDATE;
    IF p_on THEN
        INSERT INTO blocks (blocker, blocked, created_at) VALUES (p_blocker, p_blocked, clock_timestamp())
            ON CONFLICT DO NOTHING;
    ELSE
        DELETE FROM blocks WHERE blocker = p_blocker AND blocked = p_blocked;
    END IF;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE conversations SET members_version = members_version + 1, blocked = EXISTS (
            SELECT 1 FROM blocks b
            WHERE (b.blocker = p_blocker AND b.blocked = p_blocked) OR (b.blocker = p_blocked AND b.blocked = p_blocker))
        WHERE pair_key = p_pair;
    PERFORM parley_write_row(p_row, p_owner, p_events, p_users, p_of, p_notifications, p_payloads);
    RETURN true;
END
$function$;

-- Opens a direct conversation for a request. Tells what came of it: opened, there (it was opened before), blocked, or
-- taken (the id).
CREATE FUNCTION parley_open_direct(
    p_id text,
    p_pair text,
    p_one text,
    p_other text,
    p_by_backend boolean,          -- who opens it although one has blocked the other
    p_at timestamptz,
    p_row bigint,
    p_owner text,
    p_events text,
    p_users text[],
    p_of bigint[],
    p_notifications bigint[],
    p_payloads text[]
) RETURNS text LANGUAGE plpgsql VOLATILE AS $function$
DECLARE
    v_is_blocked boolean;
BEGIN
    PERFORM parley_lock_pairs(ARRAY[p_pair]);
    PERFORM 1 FROM conversations c WHERE c.pair_key = p_pair;
    IF FOUND THEN
        RETURN 'there';
    END IF;
    v_is_blocked := EXISTS (SELECT 1 FROM blocks b WHERE b.blocker = p_one AND b.blocked = p_other)
        OR EXISTS (SELECT 1 FROM blocks b WHERE b.blocker = p_other AND b.blocked = p_one);
    IF v_is_blocked AND NOT p_by_backend THEN
        RETURN 'blocked';
    END IF;
    PERFORM parley_open_pairs(ARRAY[p_id], ARRAY[p_pair], ARRAY[p_one], ARRAY[p_other], p_at);
    IF v_is_blocked THEN
        UPDATE conversations SET blocked = true WHERE id = p_id;
    END IF;
    PERFORM parley_write_row(p_row, p_owner, p_events, p_users, p_of, p_notifications, p_payloads);
    RETURN 'opened';
EXCEPTION
    WHEN unique_violation THEN
        RETURN 'taken';
END
$function$;

-- Members who come, go, or get another role or state. Returns the seq of the newest message; null if the members changed
-- since they were read, or a message came, where that matters (p_last_seq isn't null). A user who comes in begins at the
-- newest message. A user who leaves keeps the message after which they left. An earlier stay is kept apart, unless it goes
-- on because no message was sent in between.
CREATE FUNCTION parley_change_members(
    p_conversation text,
    p_members_version bigint,
    p_last_seq bigint,
    p_members text[],              -- in order of id
    p_role text,
    p_state text,
    p_comes boolean,
    p_goes boolean,
    p_row bigint,
    p_owner text,
    p_events text,
    p_users text[],
    p_of bigint[],
    p_notifications bigint[],
    p_payloads text[]
) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $function$
DECLARE
    v_last_seq bigint;
    v_version bigint;
    v_count bigint := cardinality(p_members);
BEGIN
    SELECT c.last_seq, c.members_version INTO v_last_seq, v_version
        FROM conversations c WHERE c.id = p_conversation FOR NO KEY UPDATE;
    IF v_version IS DISTINCT FROM p_members_version OR v_last_seq <> coalesce(p_last_seq, v_last_seq) THEN
        RETURN NULL;
    END IF;
    IF p_comes THEN
        INSERT INTO past_members SELECT m.conversation_id, m.user_id, m.joined_seq, m.left_seq FROM members m
            WHERE m.conversation_id = p_conversation AND m.user_id = ANY (p_members) AND m.left_seq > m.joined_seq
                AND m.left_seq < v_last_seq;
    END IF;
    INSERT INTO members AS m
            (conversation_id, user_id, role, state, read_seq, seen_seq, delivered_seq, joined_seq)
        SELECT p_conversation, i.user_id, p_role, p_state, v_last_seq, v_last_seq, v_last_seq, v_last_seq
        FROM unnest(p_members) AS i(user_id)
        ON CONFLICT (conversation_id, user_id) DO UPDATE SET role = p_role, state = p_state,
            read_seq = CASE WHEN p_comes THEN v_last_seq ELSE m.read_seq END,
            seen_seq = CASE WHEN p_comes THEN v_last_seq ELSE m.seen_seq END,
            delivered_seq = CASE WHEN p_comes THEN v_last_seq ELSE m.delivered_seq END,
            joined_seq = CASE WHEN p_comes AND m.left_seq IS DISTINCT FROM v_last_seq THEN v_last_seq
                ELSE m.joined_seq END,
            left_seq = CASE WHEN p_goes THEN v_last_seq WHEN p_comes THEN NULL ELSE m.left_seq END;
    UPDATE conversations SET members_version = members_version + v_count,
            member_count = member_count + CASE WHEN p_comes THEN v_count WHEN p_goes THEN -v_count ELSE 0 END,
            members_seq = CASE WHEN p_comes OR p_goes THEN v_last_seq ELSE members_seq END
        WHERE id = p_conversation;
    PERFORM parley_write_row(p_row, p_owner, p_events, p_users, p_of, p_notifications, p_payloads);
    RETURN v_last_seq;
END
$function$;
