-- Ids are compared byte by byte, so that every node locks rows in the same order.

CREATE TABLE conversations (
    id text COLLATE "C" PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('direct', 'group', 'channel')),
    -- Direct conversations only: both user ids in order, joined by '/', which no id holds.
    pair_key text COLLATE "C" UNIQUE,
    title text,
    visibility text NOT NULL CHECK (visibility IN ('public', 'private')),
    password_hash text,
    -- Direct conversations only: one of the two has blocked the other.
    blocked boolean NOT NULL DEFAULT false,
    last_seq bigint NOT NULL DEFAULT 0,
    rev bigint NOT NULL DEFAULT 0,
    members_version bigint NOT NULL DEFAULT 1,
    member_count bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    -- Not indexed, so that the update of every commit stays in its page (HOT).
    last_activity timestamptz NOT NULL
) WITH (fillfactor = 80);

CREATE TABLE members (
    conversation_id text COLLATE "C" NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    user_id text COLLATE "C" NOT NULL,
    role text NOT NULL CHECK (role IN ('member', 'admin', 'owner')),
    state text NOT NULL CHECK (state IN ('accepted', 'invited', 'banned', 'left')),
    read_seq bigint NOT NULL DEFAULT 0,
    seen_seq bigint NOT NULL DEFAULT 0,
    delivered_seq bigint NOT NULL DEFAULT 0,
    joined_seq bigint NOT NULL DEFAULT 0,
    left_seq bigint,
    PRIMARY KEY (conversation_id, user_id)
) WITH (fillfactor = 80);
CREATE INDEX members_by_user ON members (user_id, conversation_id) WHERE state = 'accepted';

-- No foreign key to conversations: a send holds the conversation's row lock, and the check would cost a look-up per row.
CREATE TABLE messages (
    id bigint PRIMARY KEY,
    conversation_id text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    rev bigint NOT NULL,
    sender_id text COLLATE "C" NOT NULL,
    temp_id text COLLATE "C",
    kind text NOT NULL,
    content text NOT NULL,
    reply_to bigint,
    created_at timestamptz NOT NULL,
    edited_at timestamptz,
    deleted_at timestamptz,
    UNIQUE (conversation_id, seq)
);
CREATE UNIQUE INDEX messages_by_temp_id ON messages (sender_id, temp_id) WHERE temp_id IS NOT NULL;
CREATE INDEX messages_by_rev ON messages (conversation_id, rev);

CREATE TABLE blocks (
    blocker text COLLATE "C" NOT NULL,
    blocked text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (blocker, blocked)
);

CREATE TABLE users (
    id text COLLATE "C" PRIMARY KEY,
    last_seen timestamptz
);

-- Who last came with a name.
CREATE TABLE usernames (
    username text COLLATE "C" PRIMARY KEY,
    user_id text COLLATE "C" NOT NULL
);

CREATE TABLE outbox (
    id bigint PRIMARY KEY,
    owner text NOT NULL,
    committed_at timestamptz NOT NULL,
    -- Messages of a batch, in commit order.
    message_ids bigint[] NOT NULL DEFAULT '{}',
    -- Why messages of the batch were refused, by place; null if none was.
    refusals text[],
    -- The other durable events: JSON, an array of OutboxEvent.
    events text NOT NULL DEFAULT '[]',
    published_at timestamptz,
    -- The backbone server that it was published under.
    server text
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
CREATE INDEX outbox_due ON outbox (committed_at, id) WHERE published_at IS NULL;
CREATE INDEX outbox_published ON outbox (published_at) WHERE published_at IS NOT NULL;

CREATE TABLE leases (
    owner text PRIMARY KEY,
    beaten_at timestamptz NOT NULL
);

CREATE TABLE backbone (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    server text NOT NULL
);

CREATE TABLE id_blocks (
    name text PRIMARY KEY,
    next bigint NOT NULL
);
INSERT INTO id_blocks VALUES ('all', 1);

CREATE TABLE audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    kind text NOT NULL,
    user_id text,
    conversation_id text,
    connection_id text,
    detail text
);
CREATE INDEX audit_by_time ON audit (at);
