-- Sends whose content the hook replaced: a repetition of one isn't compared with what is stored.
CREATE TABLE replaced_sends (
    sender_id TEXT NOT NULL,
    temp_id TEXT NOT NULL,
    PRIMARY KEY (sender_id, temp_id)
) STRICT, WITHOUT ROWID;
