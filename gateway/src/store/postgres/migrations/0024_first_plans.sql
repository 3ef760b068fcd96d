-- In an empty database all indexes of a table look alike: until the server has analyzed its tables, within a minute of the
-- first users, every look-up of a conversation's members would read the whole index of members by user. So it is shown some
-- rows once, and keeps of them how selective the columns are.
DO $do$ BEGIN
    IF EXISTS (SELECT FROM conversations) THEN
        RETURN;
    END IF;
    LOCK TABLE conversations, members, past_members IN ACCESS EXCLUSIVE MODE;
    -- What was made while this waited for the locks must stay.
    IF EXISTS (SELECT FROM conversations) THEN
        RETURN;
    END IF;
    INSERT INTO conversations (id, kind, visibility, member_count, created_at, last_activity)
        SELECT 'shown-' || n, 'direct', 'private', 2, now(), now() FROM generate_series(1, 200) n;
    INSERT INTO members (conversation_id, user_id, role, state)
        SELECT 'shown-' || n, 'shown-' || u, 'member', 'accepted' FROM generate_series(1, 200) n, generate_series(n, n + 1) u;
    ANALYZE conversations, members;
    -- Unlike DELETE it leaves nothing for which the server would analyze the empty tables.
    TRUNCATE conversations, members, past_members;
END $do$;
