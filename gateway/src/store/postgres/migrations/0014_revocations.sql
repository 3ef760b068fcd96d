-- Users whose tokens issued up to that second (unix time) are worthless.
CREATE TABLE revocations (
    user_id text COLLATE "C" PRIMARY KEY,
    revoked_s bigint NOT NULL
);
