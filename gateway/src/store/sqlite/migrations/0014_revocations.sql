-- Users whose tokens issued up to that second (unix time) are worthless.
CREATE TABLE revocations (
    user_id TEXT PRIMARY KEY NOT NULL,
    revoked_s INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
