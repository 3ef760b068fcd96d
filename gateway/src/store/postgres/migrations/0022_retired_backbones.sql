-- Backbone servers that a node has left for another. What is published under one of them no longer counts as published:
-- whoever still does so is cut off together with it (NOLOSS A2).
CREATE TABLE retired_backbones (
    server text COLLATE "C" PRIMARY KEY,
    retired_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
