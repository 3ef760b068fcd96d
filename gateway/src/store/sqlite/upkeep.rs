//! Upkeep: one process at a time, in small steps.

use async_trait::async_trait;
use rusqlite::{Connection, params};
use shared::ConversationId;

use super::rows::{before_ms, execute, get, integer, now_ms, parsed, rows};
use super::thread::SqliteStore;
use crate::store::upkeep::{DELETED_PER_STEP, ExpiryStep, LOOKED_AT_PER_STEP, Upkeep};
use crate::store::{Owner, StoreError};

#[async_trait]
impl Upkeep for SqliteStore {
    async fn take_upkeep(&self, owner: &Owner, for_ms: u64) -> Result<bool, StoreError> {
        let owner = owner.clone();
        self.write(move |change| {
            let sql = "INSERT INTO upkeep (single, owner, until) VALUES (1, ?1, ?2) \
                ON CONFLICT (single) DO UPDATE SET owner = excluded.owner, until = excluded.until \
                    WHERE owner = excluded.owner OR until < ?3";
            let now = now_ms();
            Ok(execute(change, sql, params![&*owner, now.saturating_add(integer(for_ms)), now])? > 0)
        })
        .await
    }

    async fn expire_messages(&self, age_ms: u64, after: Option<&ConversationId>) -> Result<ExpiryStep, StoreError> {
        let after = after.cloned();
        self.write(move |change| expire_messages(change, age_ms, after)).await
    }

    async fn expire_audit(&self, age_ms: u64) -> Result<bool, StoreError> {
        self.write(move |change| {
            let sql = "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < ?1 ORDER BY at LIMIT ?2)";
            let deleted = execute(change, sql, params![before_ms(age_ms), DELETED_PER_STEP])?;
            Ok(deleted >= usize::try_from(DELETED_PER_STEP).unwrap_or(usize::MAX))
        })
        .await
    }
}

/// A conversation's messages are as old as their order says, so that a look at the first of them tells whether there is
/// anything to do.
fn expire_messages(change: &Connection, age_ms: u64, after: Option<ConversationId>) -> Result<ExpiryStep, StoreError> {
    let sql = "SELECT c.id, coalesce((SELECT m.created_at FROM messages m WHERE m.conversation_id = c.id \
            ORDER BY m.seq LIMIT 1) < ?3, 0) AS is_due \
        FROM conversations c WHERE c.id > ?1 ORDER BY c.id LIMIT ?2";
    let cutoff = before_ms(age_ms);
    // No id is empty: all come behind that.
    let start = after.as_ref().map_or("", ConversationId::as_str);
    let page: Vec<(ConversationId, bool)> = rows(change, sql, params![start, LOOKED_AT_PER_STEP, cutoff], |row| {
        Ok((parsed(row, "id", str::parse)?, get(row, "is_due")?))
    })?;
    let is_last = page.len() < usize::try_from(LOOKED_AT_PER_STEP).unwrap_or(usize::MAX);
    let mut before = after;
    for (id, is_due) in page {
        if !is_due {
            before = Some(id);
            continue;
        }
        let sql = "DELETE FROM messages WHERE id IN (SELECT id FROM messages \
            WHERE conversation_id = ?1 AND created_at < ?2 ORDER BY seq LIMIT ?3)";
        let deleted = execute(change, sql, params![id.as_str(), cutoff, DELETED_PER_STEP])?;
        let deleted = u64::try_from(deleted).unwrap_or(u64::MAX);
        // After a full step the next one begins with the same conversation.
        let after = if deleted >= u64::from(DELETED_PER_STEP) { before } else { Some(id) };
        return Ok(ExpiryStep { deleted, after, is_last: false });
    }
    Ok(ExpiryStep { deleted: 0, after: before, is_last })
}
