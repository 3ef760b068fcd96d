-- The name that others are shown, which several may have.
ALTER TABLE users ADD COLUMN name TEXT;
INSERT INTO users (id, name) SELECT user_id, min(username) FROM usernames WHERE true GROUP BY user_id
    ON CONFLICT (id) DO UPDATE SET name = excluded.name;

-- The name by which others look a user up: each belongs to the first who came with it, and a user has one at most.
DELETE FROM usernames WHERE EXISTS (
    SELECT 1 FROM usernames kept WHERE kept.user_id = usernames.user_id AND kept.username < usernames.username);
DROP INDEX usernames_by_user;
CREATE UNIQUE INDEX usernames_of_user ON usernames (user_id);
