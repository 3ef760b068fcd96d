-- A user's name is looked up for events that tell it.
CREATE INDEX usernames_by_user ON usernames (user_id, username);
