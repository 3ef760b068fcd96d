-- Backbone servers that a node has left for another. What is published under one of them no longer counts as published:
-- whoever still does so is cut off together with it (NOLOSS A2).
CREATE TABLE retired_backbones (
    server TEXT PRIMARY KEY,
    retired_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
