-- The name that others are shown, which several may have.
ALTER TABLE users ADD COLUMN name text;
INSERT INTO users (id, name) SELECT user_id, min(username) FROM usernames GROUP BY user_id
    ON CONFLICT (id) DO UPDATE SET name = excluded.name;

-- The name by which others look a user up: each belongs to the first who came with it, and a user has one at most.
DELETE FROM usernames u USING usernames kept WHERE kept.user_id = u.user_id AND kept.username < u.username;
DROP INDEX usernames_by_user;
CREATE UNIQUE INDEX usernames_of_user ON usernames (user_id);
