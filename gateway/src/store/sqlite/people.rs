//! Blocks between users, their names, and when they were last there.

use rusqlite::{Connection, params};
use shared::{Timestamp, UserId};

use super::conversations::pair_key;
use super::outbox;
use super::rows::{execute, now_ms, parsed, row};
use crate::store::people::{newest_names, newest_times};
use crate::store::{OutboxRow, Refusal, StoreError};

/// Blocks or unblocks, and tells the direct conversation of the two, whose sends look there.
pub(super) fn set_block(
    change: &Connection,
    (blocker, blocked): (&UserId, &UserId),
    on: bool,
    outbox: &OutboxRow<bool>,
) -> Result<bool, StoreError> {
    if blocker == blocked {
        return Err(Refusal::Conflict.into());
    }
    let (one, other) = (blocker.as_str(), blocked.as_str());
    let changed = if on {
        let sql = "INSERT INTO blocks (blocker, blocked, created_at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
        execute(change, sql, params![one, other, now_ms()])?
    } else {
        execute(change, "DELETE FROM blocks WHERE blocker = ?1 AND blocked = ?2", [one, other])?
    } > 0;
    if changed {
        let sql = "UPDATE conversations SET members_version = members_version + 1, blocked = EXISTS (\
            SELECT 1 FROM blocks b WHERE (b.blocker = ?2 AND b.blocked = ?3) OR (b.blocker = ?3 AND b.blocked = ?2)) \
            WHERE pair_key = ?1";
        execute(change, sql, params![pair_key((blocker, blocked)), one, other])?;
    }
    outbox::write(change, outbox, &changed)?;
    Ok(changed)
}

pub(super) fn remember_usernames(change: &Connection, users: &[(UserId, String)]) -> Result<(), StoreError> {
    for (name, user) in newest_names(users) {
        let sql = "INSERT INTO usernames (username, user_id) VALUES (?1, ?2) \
            ON CONFLICT (username) DO UPDATE SET user_id = excluded.user_id WHERE user_id <> excluded.user_id";
        execute(change, sql, [name, user.as_str()])?;
    }
    Ok(())
}

pub(super) fn user_by_name(read: &Connection, username: &str) -> Result<Option<UserId>, StoreError> {
    row(read, "SELECT user_id FROM usernames WHERE username = ?1", [username], |row| parsed(row, "user_id", str::parse))
}

pub(super) fn set_last_seen(change: &Connection, users: &[(UserId, Timestamp)]) -> Result<(), StoreError> {
    for (user, at) in newest_times(users) {
        let sql = "INSERT INTO users (id, last_seen) VALUES (?1, ?2) \
            ON CONFLICT (id) DO UPDATE SET last_seen = max(coalesce(last_seen, 0), excluded.last_seen)";
        execute(change, sql, params![user.as_str(), at.unix_ms()])?;
    }
    Ok(())
}
