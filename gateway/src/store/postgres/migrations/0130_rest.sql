-- The end of a conversation. Its rows stay, so that its id stays taken. No index holds the column by itself, so that
-- the update of every commit stays in its page (HOT).
ALTER TABLE conversations ADD COLUMN deleted_at timestamptz;

-- What the application keeps beside a message's content: JSON, an object.
ALTER TABLE messages ADD COLUMN data text;

-- Until when a member may not write.
ALTER TABLE members ADD COLUMN muted_until timestamptz;

-- The functions that store messages refuse a muted member. Everything else in them stays as earlier migrations made it.
DO $patch$
DECLARE
    v_patch text[];
    v_old text;
    v_new text;
BEGIN
    FOREACH v_patch SLICE 1 IN ARRAY ARRAY[
        ['parley_send_plain',
            $$l.user_id = i.user_id AND l.state = 'accepted'$$,
            $$l.user_id = i.user_id AND l.state = 'accepted'
                AND (l.muted_until IS NULL OR l.muted_until <= out_created_at)$$],
        ['parley_send',
            $$WHEN c.blocked THEN 'blocked'$$,
            $$WHEN m.muted_until > v_now THEN 'muted' WHEN c.blocked THEN 'blocked'$$]
    ] LOOP
        v_old := pg_get_functiondef(v_patch[1]::regproc);
        v_new := replace(v_old, v_patch[2], v_patch[3]);
        IF v_new = v_old THEN
            RAISE EXCEPTION '% has another form than this migration knows', v_patch[1];
        END IF;
        EXECUTE v_new;
    END LOOP;
END
$patch$;

-- Deleted conversations whose messages still have contents: up to which message they are empty.
CREATE TABLE emptying (
    conversation_id text COLLATE "C" PRIMARY KEY REFERENCES conversations (id) ON DELETE CASCADE,
    seq bigint NOT NULL
);

-- The node that does the upkeep, and until when it does.
CREATE TABLE upkeep (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    owner text NOT NULL,
    until timestamptz NOT NULL
);

-- Memberships that are no members: invitations, and the stays of users whose data is erased or exported.
CREATE INDEX members_elsewhere ON members (user_id, conversation_id) WHERE state <> 'accepted';

-- The directory of channels that everybody may join.
CREATE INDEX conversations_public ON conversations (id)
    WHERE kind = 'channel' AND visibility = 'public' AND deleted_at IS NULL;

-- Users whose erasure isn't done, and how far it has come: the messages up to a place in a conversation are emptied,
-- then the logs of the members of conversations are cut.
CREATE TABLE erasures (
    user_id text COLLATE "C" PRIMARY KEY,
    phase text NOT NULL,               -- messages, logs
    conversation_id text COLLATE "C",
    seq bigint NOT NULL
);

-- For who has blocked a user.
CREATE INDEX blocks_by_blocked ON blocks (blocked);
