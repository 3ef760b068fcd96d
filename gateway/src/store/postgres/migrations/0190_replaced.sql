-- Sends whose content the hook replaced: a repetition of one isn't compared with what is stored.
CREATE TABLE replaced_sends (
    sender_id text COLLATE "C" NOT NULL,
    temp_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (sender_id, temp_id)
);
