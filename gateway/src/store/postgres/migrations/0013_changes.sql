-- Edits, deletions and reactions. Reactions stand in the message's own row: whoever reads a message reads them too, and
-- they are bounded. JSON: an object of arrays of user ids by emoji; null without any.

ALTER TABLE messages ADD COLUMN reactions text;

-- What messages said before they were edited. Goes when the message is deleted.
CREATE TABLE edits (
    message_id bigint NOT NULL REFERENCES messages (id) ON DELETE CASCADE,
    -- The message's rev while it said this.
    rev bigint NOT NULL,
    content text NOT NULL,
    -- When it was replaced.
    replaced_at timestamptz NOT NULL,
    PRIMARY KEY (message_id, rev)
);
