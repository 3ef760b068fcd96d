-- The end of a conversation. Its rows stay, so that its id stays taken. No index holds the column by itself, so that the
-- update of every commit stays in its page (HOT).
ALTER TABLE conversations ADD COLUMN deleted_at timestamptz;

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
