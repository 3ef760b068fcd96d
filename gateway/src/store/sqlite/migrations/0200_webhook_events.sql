-- Events that a backend's webhook is owed, written in the transaction of their change. A row is owed until it is marked. An
-- id is never given twice.
CREATE TABLE webhook_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    kind TEXT NOT NULL,
    conversation_id TEXT NOT NULL,
    rev INTEGER,
    message_id INTEGER,
    -- JSON: an object of the event's own fields; null without any. No content: that is read when the event is posted.
    detail TEXT,
    at INTEGER NOT NULL,
    delivered_at INTEGER
) STRICT;
CREATE INDEX webhook_events_owed ON webhook_events (id) WHERE delivered_at IS NULL;
CREATE INDEX webhook_events_delivered ON webhook_events (delivered_at) WHERE delivered_at IS NOT NULL;

-- Events that the backend refused, or didn't take for a day.
CREATE TABLE webhook_dead (
    id INTEGER PRIMARY KEY NOT NULL,
    kind TEXT NOT NULL,
    conversation_id TEXT NOT NULL,
    rev INTEGER,
    message_id INTEGER,
    detail TEXT,
    at INTEGER NOT NULL,
    why TEXT NOT NULL,
    died_at INTEGER NOT NULL
) STRICT;
CREATE INDEX webhook_dead_by_time ON webhook_dead (died_at);

-- The process that delivers, and until when it does.
CREATE TABLE webhook_lease (
    single INTEGER PRIMARY KEY NOT NULL CHECK (single = 1),
    owner TEXT NOT NULL,
    until INTEGER NOT NULL
) STRICT;
