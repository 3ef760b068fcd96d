-- The recipients who still lack something of an unpublished row: JSON, an array of ids; null if all do.
ALTER TABLE outbox ADD COLUMN lacking TEXT;
