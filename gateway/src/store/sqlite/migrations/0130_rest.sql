-- The end of a conversation. Its rows stay, so that its id stays taken.
ALTER TABLE conversations ADD COLUMN deleted_at INTEGER;

-- What the application keeps beside a message's content: JSON, an object.
ALTER TABLE messages ADD COLUMN data TEXT;

-- Until when a member may not write.
ALTER TABLE members ADD COLUMN muted_until INTEGER;

-- Deleted conversations whose messages still have contents: up to which message they are empty.
CREATE TABLE emptying (
    conversation_id TEXT PRIMARY KEY NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    seq INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The process that does the upkeep, and until when it does.
CREATE TABLE upkeep (
    single INTEGER PRIMARY KEY NOT NULL CHECK (single = 1),
    owner TEXT NOT NULL,
    until INTEGER NOT NULL
) STRICT;

-- Memberships that are no members: invitations, and the stays of users whose data is erased or exported.
CREATE INDEX members_elsewhere ON members (user_id, conversation_id) WHERE state <> 'accepted';

-- The directory of channels that everybody may join.
CREATE INDEX conversations_public ON conversations (id)
    WHERE kind = 'channel' AND visibility = 'public' AND deleted_at IS NULL;

-- Users whose erasure isn't done, and how far it has come: the messages up to a place in a conversation are emptied,
-- then the logs of the members of conversations are cut.
CREATE TABLE erasures (
    user_id TEXT PRIMARY KEY NOT NULL,
    phase TEXT NOT NULL CHECK (phase IN ('messages', 'logs')),
    conversation_id TEXT,
    seq INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- For who has blocked a user.
CREATE INDEX blocks_by_blocked ON blocks (blocked);
