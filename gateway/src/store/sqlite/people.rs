//! People: blocks, names, partners, and when they were last online.

use async_trait::async_trait;
use rusqlite::{Connection, params};
use shared::{ConversationId, Timestamp, UserId};

use super::blocks::{blocked_with, is_blocked};
use super::outbox;
use super::rows::{execute, now_ms, parsed, row, rows};
use super::thread::SqliteStore;
use crate::store::conversations::pair_key;
use crate::store::people::{newest_times, shown_names, usernames};
use crate::store::{Names, OutboxRow, Partner, People, Refusal, StoreError};

#[async_trait]
impl People for SqliteStore {
    async fn set_block(
        &self,
        blocker: &UserId,
        blocked: &UserId,
        on: bool,
        outbox: OutboxRow<bool>,
    ) -> Result<bool, StoreError> {
        let (blocker, blocked) = (blocker.clone(), blocked.clone());
        self.write(move |change| set_block(change, (&blocker, &blocked), on, &outbox)).await
    }

    async fn blocked_with(&self, user: &UserId, others: &[UserId]) -> Result<Vec<UserId>, StoreError> {
        let (user, others) = (user.clone(), others.to_vec());
        self.read(move |read| blocked_with(read, &user, &others)).await
    }

    async fn remember_names(&self, users: &[(UserId, Names)]) -> Result<(), StoreError> {
        let users = users.to_vec();
        self.write(move |change| remember_names(change, &users)).await
    }

    async fn user_by_name(&self, username: &str) -> Result<Option<UserId>, StoreError> {
        let username = username.to_owned();
        self.read(move |read| user_by_name(read, &username)).await
    }

    async fn set_last_seen(&self, users: &[(UserId, Timestamp)]) -> Result<(), StoreError> {
        let users = users.to_vec();
        self.write(move |change| set_last_seen(change, &users)).await
    }

    async fn partners(&self, users: &[UserId], limit: u32) -> Result<Vec<Vec<Partner>>, StoreError> {
        let users = users.to_vec();
        self.read(move |read| users.iter().map(|user| partners(read, user, limit)).collect()).await
    }
}

/// Blocks or unblocks, and notes it at the direct conversation of the two, where sends check it.
fn set_block(
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

fn remember_names(change: &Connection, users: &[(UserId, Names)]) -> Result<(), StoreError> {
    for (user, name) in shown_names(users) {
        let sql = "INSERT INTO users (id, name) VALUES (?1, ?2) \
            ON CONFLICT (id) DO UPDATE SET name = excluded.name WHERE name IS NOT excluded.name";
        execute(change, sql, [user.as_str(), name])?;
    }
    let usernames = usernames(users);
    // Who comes with another name gives the earlier one up, whether or not the new one is free.
    for (name, user) in &usernames {
        execute(change, "DELETE FROM usernames WHERE user_id = ?1 AND username <> ?2", [user.as_str(), *name])?;
    }
    for (name, user) in &usernames {
        let sql = "INSERT INTO usernames (username, user_id) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
        execute(change, sql, [*name, user.as_str()])?;
    }
    Ok(())
}

fn user_by_name(read: &Connection, username: &str) -> Result<Option<UserId>, StoreError> {
    row(read, "SELECT user_id FROM usernames WHERE username = ?1", [username], |row| parsed(row, "user_id", str::parse))
}

fn set_last_seen(change: &Connection, users: &[(UserId, Timestamp)]) -> Result<(), StoreError> {
    for (user, at) in newest_times(users) {
        let sql = "INSERT INTO users (id, last_seen) VALUES (?1, ?2) \
            ON CONFLICT (id) DO UPDATE SET last_seen = max(coalesce(last_seen, 0), excluded.last_seen)";
        execute(change, sql, params![user.as_str(), at.unix_ms()])?;
    }
    Ok(())
}

/// Looks at no more than `limit` conversations and one more than `limit` others in each, so that a large channel costs
/// no more.
fn partners(read: &Connection, user: &UserId, limit: u32) -> Result<Vec<Partner>, StoreError> {
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let sql = "SELECT c.id FROM members p JOIN conversations c ON c.id = p.conversation_id \
        WHERE p.user_id = ?1 AND p.state = 'accepted' \
        ORDER BY c.kind = 'direct' DESC, c.last_activity DESC, c.id LIMIT ?2";
    let conversations: Vec<ConversationId> =
        rows(read, sql, params![user.as_str(), limit], |row| parsed(row, "id", str::parse))?;
    let sql = "SELECT user_id FROM members \
        WHERE conversation_id = ?1 AND user_id <> ?2 AND state = 'accepted' ORDER BY user_id LIMIT ?3";
    let mut partners: Vec<UserId> = Vec::new();
    let mut known = std::collections::HashSet::new();
    for id in conversations {
        if partners.len() >= most {
            break;
        }
        let members: Vec<UserId> = rows(read, sql, params![id.as_str(), user.as_str(), i64::from(limit) + 1], |row| {
            parsed(row, "user_id", str::parse)
        })?;
        if members.len() > most {
            continue;
        }
        partners.extend(members.into_iter().filter(|member| known.insert(member.clone())));
    }
    partners.truncate(most);
    let with_block = |partner: UserId| Ok(Partner { blocked: is_blocked(read, user, &partner)?, user: partner });
    partners.into_iter().map(with_block).collect()
}
