-- Large conversations: their events are published once for all members, and their members' logs have none of them.
ALTER TABLE conversations ADD COLUMN large boolean NOT NULL DEFAULT false;
CREATE INDEX conversations_large ON conversations (id) WHERE large;
-- What is due to become large. A send changes none of these columns.
CREATE INDEX conversations_of_many ON conversations (member_count)
    WHERE NOT large AND member_count > 2 AND deleted_at IS NULL;

-- When a conversation became large, or small again: a message goes the way that its commit found, however late it is
-- published.
CREATE TABLE crossings (
    conversation_id text COLLATE "C" NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    members_version bigint NOT NULL,   -- that the crossing made
    rev bigint NOT NULL,               -- the conversation's then
    last_seq bigint NOT NULL,
    large boolean NOT NULL,
    PRIMARY KEY (conversation_id, members_version)
);

-- A conversation becomes large, or small again. Raises the members' version, so that whoever decided by the earlier one looks
-- again. Returns the place of the crossing; null if something was changed since it was read.
CREATE FUNCTION parley_cross(
    p_conversation text,
    p_members_version bigint,
    p_large boolean,
    p_rev_placeholder text,        -- stand in the events where the numbers belong
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
DECLARE
    v_rev bigint;
    v_last_seq bigint;
BEGIN
    SELECT c.rev, c.last_seq INTO v_rev, v_last_seq FROM conversations c
        WHERE c.id = p_conversation AND c.members_version = p_members_version AND c.large <> p_large
            AND c.deleted_at IS NULL
        FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE conversations SET large = p_large, members_version = members_version + 1 WHERE id = p_conversation;
    INSERT INTO crossings (conversation_id, members_version, rev, last_seq, large)
        VALUES (p_conversation, p_members_version + 1, v_rev, v_last_seq, p_large);
    PERFORM parley_write_row(p_row, p_owner,
        replace(replace(p_events, p_rev_placeholder, v_rev::text), p_seq_placeholder, v_last_seq::text),
        p_users, p_of, p_notifications, p_payloads);
    out_rev := v_rev;
    out_last_seq := v_last_seq;
END
$function$;
