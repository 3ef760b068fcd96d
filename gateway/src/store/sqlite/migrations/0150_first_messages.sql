-- The direct conversations that a batch opened: JSON, an array of ids; null if none. conversation.created is published for
-- them, before the messages.
ALTER TABLE outbox ADD COLUMN opened TEXT;
