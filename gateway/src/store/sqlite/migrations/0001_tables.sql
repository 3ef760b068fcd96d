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
    last_activity INTEGER NOT NULL
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
    UNIQUE (conversation_id, seq)
) STRICT;
CREATE UNIQUE INDEX messages_by_temp_id ON messages (sender_id, temp_id) WHERE temp_id IS NOT NULL;
CREATE INDEX messages_by_rev ON messages (conversation_id, rev);

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

-- Who last came with a name.
CREATE TABLE usernames (
    username TEXT PRIMARY KEY NOT NULL,
    user_id TEXT NOT NULL
) STRICT, WITHOUT ROWID;

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
