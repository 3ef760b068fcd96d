-- The whole schema of the first release. What changes later stands in a file of its own, with a higher number.
-- Times are milliseconds since 1970. Text is compared byte by byte, SQLite's default.

CREATE TABLE conversations (
    id TEXT PRIMARY KEY NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('direct', 'group', 'channel')),
    -- Direct conversations only: both user ids in order, joined by '/', which no id holds.
    pair_key TEXT UNIQUE,
    title TEXT,
    visibility TEXT NOT NULL CHECK (visibility IN ('public', 'private')),
    password_hash TEXT,
    -- Direct conversations only: one of the two has blocked the other.
    blocked INTEGER NOT NULL DEFAULT 0,
    last_seq INTEGER NOT NULL DEFAULT 0,
    rev INTEGER NOT NULL DEFAULT 0,
    members_version INTEGER NOT NULL DEFAULT 1,
    member_count INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    last_activity INTEGER NOT NULL,
    -- The newest message when somebody last came or went: every later message was for the members of now.
    members_seq INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE members (
    conversation_id TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('member', 'admin', 'owner')),
    state TEXT NOT NULL CHECK (state IN ('accepted', 'invited', 'banned', 'left')),
    read_seq INTEGER NOT NULL DEFAULT 0,
    seen_seq INTEGER NOT NULL DEFAULT 0,
    delivered_seq INTEGER NOT NULL DEFAULT 0,
    joined_seq INTEGER NOT NULL DEFAULT 0,
    left_seq INTEGER,
    PRIMARY KEY (conversation_id, user_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX members_by_user ON members (user_id, conversation_id) WHERE state = 'accepted';

-- Earlier stays of users who came back; the last stay stands in members. A message that is published late goes to the
-- members of the time of its commit (NOLOSS.md, Medium). A stay saw the messages after joined_seq up to left_seq. A
-- stay without messages is not kept.
CREATE TABLE past_members (
    conversation_id TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL,
    joined_seq INTEGER NOT NULL,
    left_seq INTEGER NOT NULL,
    PRIMARY KEY (conversation_id, user_id, left_seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE messages (
    id INTEGER PRIMARY KEY NOT NULL,
    conversation_id TEXT NOT NULL REFERENCES conversations (id),
    seq INTEGER NOT NULL,
    rev INTEGER NOT NULL,
    sender_id TEXT NOT NULL,
    temp_id TEXT,
    kind TEXT NOT NULL,
    content TEXT NOT NULL,
    reply_to INTEGER,
    created_at INTEGER NOT NULL,
    edited_at INTEGER,
    deleted_at INTEGER,
    -- JSON: an object of arrays of user ids by emoji; null without any. In the message's own row, because a message is
    -- never read without its reactions, and they are bounded.
    reactions TEXT,
    UNIQUE (conversation_id, seq)
) STRICT;
CREATE UNIQUE INDEX messages_by_temp_id ON messages (sender_id, temp_id) WHERE temp_id IS NOT NULL;
CREATE INDEX messages_by_rev ON messages (conversation_id, rev);

-- The earlier contents of edited messages. They are deleted with the message.
CREATE TABLE edits (
    message_id INTEGER NOT NULL REFERENCES messages (id) ON DELETE CASCADE,
    -- The message's rev while it had this content.
    rev INTEGER NOT NULL,
    content TEXT NOT NULL,
    replaced_at INTEGER NOT NULL,
    PRIMARY KEY (message_id, rev)
) STRICT, WITHOUT ROWID;

CREATE TABLE blocks (
    blocker TEXT NOT NULL,
    blocked TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (blocker, blocked)
) STRICT, WITHOUT ROWID;

CREATE TABLE users (
    id TEXT PRIMARY KEY NOT NULL,
    last_seen INTEGER
) STRICT, WITHOUT ROWID;

-- The user who last came with a name.
CREATE TABLE usernames (
    username TEXT PRIMARY KEY NOT NULL,
    user_id TEXT NOT NULL
) STRICT, WITHOUT ROWID;
-- For events that tell a user's name.
CREATE INDEX usernames_by_user ON usernames (user_id, username);

-- Users whose tokens are revoked if they were issued up to that second (unix time).
CREATE TABLE revocations (
    user_id TEXT PRIMARY KEY NOT NULL,
    revoked_s INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Durable notifications, one row per user. The transaction that writes the outbox row of their event writes them too.
CREATE TABLE notifications (
    user_id TEXT NOT NULL,
    id INTEGER NOT NULL,
    -- The payload of the event: JSON, an object.
    payload TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    read_at INTEGER,
    PRIMARY KEY (user_id, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX notifications_by_time ON notifications (user_id, created_at, id);
CREATE INDEX notifications_unread ON notifications (user_id) WHERE read_at IS NULL;

CREATE TABLE outbox (
    id INTEGER PRIMARY KEY NOT NULL,
    owner TEXT NOT NULL,
    committed_at INTEGER NOT NULL,
    -- Messages of a batch, in commit order: JSON, an array of numbers.
    message_ids TEXT NOT NULL DEFAULT '[]',
    -- Why messages of the batch were refused, by place: JSON, an array of words and nulls; null if none was.
    refusals TEXT,
    -- The other durable events: JSON, an array of OutboxEvent.
    events TEXT NOT NULL DEFAULT '[]',
    published_at INTEGER,
    -- The backbone server that it was published under.
    server TEXT
) STRICT;
CREATE INDEX outbox_due ON outbox (committed_at, id) WHERE published_at IS NULL;
CREATE INDEX outbox_published ON outbox (published_at) WHERE published_at IS NOT NULL;

CREATE TABLE leases (
    owner TEXT PRIMARY KEY NOT NULL,
    beaten_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE backbone (
    single INTEGER PRIMARY KEY NOT NULL CHECK (single = 1),
    server TEXT NOT NULL
) STRICT;

-- Backbone servers that a node has left for another. A row that is published under one of them stays unpublished: its
-- publisher is cut off together with that server (NOLOSS.md, A2).
CREATE TABLE retired_backbones (
    server TEXT PRIMARY KEY,
    retired_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE id_blocks (
    name TEXT PRIMARY KEY NOT NULL,
    next INTEGER NOT NULL
) STRICT;
INSERT INTO id_blocks VALUES ('all', 1);

CREATE TABLE audit (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    user_id TEXT,
    conversation_id TEXT,
    connection_id TEXT,
    detail TEXT
) STRICT;
CREATE INDEX audit_by_time ON audit (at);
