-- Large conversations: their events are published once for all members, and their members' logs have none of them.
ALTER TABLE conversations ADD COLUMN large INTEGER NOT NULL DEFAULT 0;
CREATE INDEX conversations_large ON conversations (id) WHERE large;
-- What is due to become large.
CREATE INDEX conversations_of_many ON conversations (member_count)
    WHERE NOT large AND member_count > 2 AND deleted_at IS NULL;

-- When a conversation became large, or small again: a message goes the way that its commit found, however late it is
-- published.
CREATE TABLE crossings (
    conversation_id TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    -- That the crossing made.
    members_version INTEGER NOT NULL,
    -- The conversation's then.
    rev INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    large INTEGER NOT NULL,
    PRIMARY KEY (conversation_id, members_version)
) STRICT, WITHOUT ROWID;
