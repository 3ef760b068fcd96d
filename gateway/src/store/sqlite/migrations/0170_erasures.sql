-- When an erasure began: what the user sent just before may still be on its way into tables. And when their messages were
-- emptied: what was committed before has to be published before logs are cut.
ALTER TABLE erasures ADD COLUMN begun_at INTEGER;
ALTER TABLE erasures ADD COLUMN emptied_at INTEGER;
