-- Who was in a conversation when a message was committed: it is published to them, however late (NOLOSS).

-- The newest message when somebody last came or went: the members of every later message are those of now.
ALTER TABLE conversations ADD COLUMN members_seq bigint NOT NULL DEFAULT 0;
UPDATE conversations SET members_seq = last_seq;

-- Earlier stays of those who came back; the last stay stands in members. A stay saw the messages after joined_seq up to
-- left_seq, and one that saw none is not kept.
CREATE TABLE past_members (
    conversation_id text COLLATE "C" NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    user_id text COLLATE "C" NOT NULL,
    joined_seq bigint NOT NULL,
    left_seq bigint NOT NULL,
    PRIMARY KEY (conversation_id, user_id, left_seq)
);
