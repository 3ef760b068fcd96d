-- Durable notifications, one row per user: written by the transaction that writes the outbox row of their event.
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
