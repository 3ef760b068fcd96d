-- The recipients who still lack something of an unpublished row; null if all do.
ALTER TABLE outbox ADD COLUMN lacking text[];
