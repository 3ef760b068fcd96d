-- The rest of what 0160 began: a change or the end of a conversation, a mute and the beginning of an erasure are one call of
-- one function each, so that no row stays locked while an answer is on its way to a node (NOLOSS.md, C5). The node reads what
-- it decides by without locks, and decides. The function looks under the lock whether that still holds. If not, it changes
-- nothing, and the node reads and decides anew.

-- Another title, visibility or password. Both results are null if something was changed since it was read.
CREATE FUNCTION parley_change_conversation(
    p_conversation text,
    p_members_version bigint,      -- what the decision was made by
    p_old_title text,
    p_old_visibility text,
    p_old_password_hash text,
    p_title text,
    p_visibility text,
    p_password_hash text,
    p_rev_placeholder text,        -- these two stand in the events where the new rev and the newest message's seq belong
    p_seq_placeholder text,
    p_row bigint,
    p_owner text,
    p_events text,
    p_users text[],
    p_of bigint[],
    p_notifications bigint[],
    p_payloads text[],
    OUT out_rev bigint,
    OUT out_last_seq bigint
) LANGUAGE plpgsql VOLATILE AS $function$
BEGIN
    SELECT c.rev + 1, c.last_seq INTO out_rev, out_last_seq FROM conversations c
        WHERE c.id = p_conversation AND c.members_version = p_members_version
            AND c.title IS NOT DISTINCT FROM p_old_title AND c.visibility = p_old_visibility
            AND c.password_hash IS NOT DISTINCT FROM p_old_password_hash
        FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE conversations SET title = p_title, visibility = p_visibility, password_hash = p_password_hash, rev = out_rev
        WHERE id = p_conversation;
    PERFORM parley_write_row(p_row, p_owner,
        replace(replace(p_events, p_rev_placeholder, out_rev::text), p_seq_placeholder, out_last_seq::text),
        p_users, p_of, p_notifications, p_payloads);
END
$function$;

-- Empties the messages of a deleted conversation after p_seq, up to p_up_to.
CREATE FUNCTION parley_empty_messages(p_conversation text, p_seq bigint, p_up_to bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE AS $function$
BEGIN
    DELETE FROM edits e USING messages m
        WHERE e.message_id = m.id AND m.conversation_id = p_conversation AND m.seq > p_seq AND m.seq <= p_up_to;
    UPDATE messages SET content = '', data = NULL, reactions = NULL,
            deleted_at = coalesce(deleted_at, date_trunc('milliseconds', clock_timestamp()))
        WHERE conversation_id = p_conversation AND seq > p_seq AND seq <= p_up_to;
END
$function$;

-- Ends a conversation, and empties its first messages. Returns the seq of the newest message; null if the members changed
-- since they were read.
CREATE FUNCTION parley_delete_conversation(
    p_conversation text,
    p_pair text,                   -- the pair of a direct conversation; null of any other
    p_members_version bigint,
    p_at timestamptz,
    p_emptied bigint,              -- how many messages are emptied at once
    p_seq_placeholder text,
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
BEGIN
    IF p_pair IS NOT NULL THEN
        PERFORM parley_lock_pairs(ARRAY[p_pair]);
    END IF;
    SELECT c.last_seq INTO v_last_seq FROM conversations c
        WHERE c.id = p_conversation AND c.members_version = p_members_version AND c.deleted_at IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    UPDATE members SET left_seq = CASE WHEN state = 'accepted' THEN v_last_seq ELSE left_seq END,
            state = 'left', role = 'member'
        WHERE conversation_id = p_conversation;
    UPDATE conversations SET deleted_at = p_at, pair_key = NULL, title = NULL, password_hash = NULL, blocked = false,
            rev = rev + 1, members_version = members_version + 1, member_count = 0, members_seq = last_seq
        WHERE id = p_conversation;
    PERFORM parley_empty_messages(p_conversation, 0, p_emptied);
    IF v_last_seq > p_emptied THEN
        INSERT INTO emptying (conversation_id, seq) VALUES (p_conversation, p_emptied);
    END IF;
    PERFORM parley_write_row(p_row, p_owner, replace(p_events, p_seq_placeholder, v_last_seq::text), p_users, p_of,
        p_notifications, p_payloads);
    RETURN v_last_seq;
END
$function$;

-- Empties some more messages of one deleted conversation. False if there was nothing to do.
CREATE FUNCTION parley_empty_deleted(p_step bigint) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $function$
DECLARE
    v_conversation text;
    v_seq bigint;
    v_last_seq bigint;
BEGIN
    SELECT e.conversation_id, e.seq, c.last_seq INTO v_conversation, v_seq, v_last_seq
        FROM emptying e JOIN conversations c ON c.id = e.conversation_id
        ORDER BY e.conversation_id LIMIT 1 FOR UPDATE OF e SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM parley_empty_messages(v_conversation, v_seq, v_seq + p_step);
    IF v_seq + p_step < v_last_seq THEN
        UPDATE emptying SET seq = v_seq + p_step WHERE conversation_id = v_conversation;
    ELSE
        DELETE FROM emptying WHERE conversation_id = v_conversation;
    END IF;
    RETURN true;
END
$function$;

-- Keeps a member from writing, or lets them write again. Whether that changed anything; null if the members changed since
-- they were read. Sends look at it under the same lock.
CREATE FUNCTION parley_mute(
    p_conversation text,
    p_members_version bigint,
    p_member text,
    p_ms bigint                    -- for how long; null: they may write
) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $function$
BEGIN
    PERFORM 1 FROM conversations c WHERE c.id = p_conversation AND c.members_version = p_members_version
        FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    UPDATE members SET muted_until = clock_timestamp() + p_ms * interval '1 millisecond'
        WHERE conversation_id = p_conversation AND user_id = p_member
            AND (p_ms IS NOT NULL OR muted_until > clock_timestamp());
    RETURN FOUND;
END
$function$;

-- When an erasure began: what the user sent just before may still be on its way into tables. And when their messages were
-- emptied: what was committed before has to be published before logs are cut.
ALTER TABLE erasures ADD COLUMN begun_at timestamptz;
ALTER TABLE erasures ADD COLUMN emptied_at timestamptz;

-- Begins the erasure of a user. False if blocks are left: then it has begun when a further call says so.
CREATE FUNCTION parley_begin_erasure(
    p_user text,
    p_pairs_max bigint             -- each pair takes a lock of the server's, which has room for some thousands
) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $function$
DECLARE
    v_others text[];
    v_pairs text[];
BEGIN
    SELECT array_agg(o.other),
            array_agg(least(o.other, p_user COLLATE "C") || '/' || greatest(o.other, p_user COLLATE "C"))
        INTO v_others, v_pairs
        FROM (
            SELECT b.blocked AS other FROM blocks b WHERE b.blocker = p_user
            UNION
            SELECT b.blocker FROM blocks b WHERE b.blocked = p_user
            LIMIT p_pairs_max
        ) o;
    IF v_others IS NOT NULL THEN
        -- As parley_set_block does: the pairs, then their conversations. Behind the locks no block of them comes or goes.
        PERFORM parley_lock_pairs(v_pairs);
        PERFORM 1 FROM conversations c WHERE c.pair_key = ANY (v_pairs) ORDER BY c.id FOR NO KEY UPDATE;
        DELETE FROM blocks b
            WHERE (b.blocker = p_user AND b.blocked = ANY (v_others))
                OR (b.blocked = p_user AND b.blocker = ANY (v_others));
        UPDATE conversations SET blocked = false, members_version = members_version + 1 WHERE pair_key = ANY (v_pairs);
    END IF;
    PERFORM 1 FROM blocks b WHERE b.blocker = p_user OR b.blocked = p_user;
    IF FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM usernames WHERE user_id = p_user;
    DELETE FROM notifications WHERE user_id = p_user;
    DELETE FROM users WHERE id = p_user;
    -- In order, as sends lock them. Each state has an index of its own.
    PERFORM 1 FROM members m WHERE m.user_id = p_user AND m.state = 'accepted' ORDER BY m.conversation_id
        FOR NO KEY UPDATE;
    UPDATE members SET read_seq = 0, delivered_seq = 0, seen_seq = 0 WHERE user_id = p_user AND state = 'accepted';
    UPDATE members SET read_seq = 0, delivered_seq = 0, seen_seq = 0 WHERE user_id = p_user AND state <> 'accepted';
    INSERT INTO erasures (user_id, phase, seq, begun_at) VALUES (p_user, 'messages', 0, clock_timestamp())
        ON CONFLICT DO NOTHING;
    RETURN true;
END
$function$;
