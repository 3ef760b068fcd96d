-- Durable notifications, one row per user: written by the transaction that writes the outbox row of their event.
CREATE TABLE notifications (
    user_id text COLLATE "C" NOT NULL,
    id bigint NOT NULL,
    -- The payload of the event: JSON, an object. Text, because JSON columns refuse what an event may hold.
    payload text NOT NULL,
    created_at timestamptz NOT NULL,
    read_at timestamptz,
    PRIMARY KEY (user_id, id)
);
CREATE INDEX notifications_by_time ON notifications (user_id, created_at, id);
CREATE INDEX notifications_unread ON notifications (user_id) WHERE read_at IS NULL;
