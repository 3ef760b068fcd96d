//! Changes of whole conversations, and the emptying of those that were deleted.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, params};
use shared::{ConversationId, ConversationKind, Timestamp, UserId, Visibility};

use super::membership::{members, standing};
use super::rows::{execute, get, integer, now_ms, number, parsed, row, rows, word};
use super::thread::SqliteStore;
use super::{conversations, outbox};
use crate::store::conversation_changes::{Before, EMPTIED_PER_STEP, may_change, may_delete};
use crate::store::{
    ConversationChange, ConversationChanged, ConversationChanges, ConversationDeleted, OutboxRow, Refusal, StoreError,
};

#[async_trait]
impl ConversationChanges for SqliteStore {
    async fn change_conversation(
        &self,
        id: &ConversationId,
        by: Option<&UserId>,
        change: &ConversationChange,
        outbox: OutboxRow<ConversationChanged>,
    ) -> Result<ConversationChanged, StoreError> {
        let (id, by, what) = (id.clone(), by.cloned(), change.clone());
        self.write(move |change| change_conversation(change, &id, by.as_ref(), &what, &outbox)).await
    }

    async fn delete_conversation(
        &self,
        id: &ConversationId,
        by: Option<&UserId>,
        outbox: OutboxRow<ConversationDeleted>,
    ) -> Result<ConversationDeleted, StoreError> {
        let (id, by) = (id.clone(), by.cloned());
        self.write(move |change| delete_conversation(change, &id, by.as_ref(), &outbox)).await
    }

    async fn empty_deleted(&self) -> Result<bool, StoreError> {
        self.write(|change| empty_deleted(change)).await
    }
}

fn change_conversation(
    transaction: &Connection,
    id: &ConversationId,
    by: Option<&UserId>,
    change: &ConversationChange,
    outbox: &OutboxRow<ConversationChanged>,
) -> Result<ConversationChanged, StoreError> {
    let sql = "SELECT kind, title, visibility, password_hash FROM conversations WHERE id = ?1 AND deleted_at IS NULL";
    let head = row(transaction, sql, [id.as_str()], |row| {
        let before = Before {
            title: get(row, "title")?,
            visibility: word(row, "visibility", Visibility::parse)?,
            password_hash: get(row, "password_hash")?,
        };
        Ok((word(row, "kind", ConversationKind::parse)?, before))
    })?;
    let (kind, before) = head.ok_or(Refusal::NotFound)?;
    may_change(kind, standing(transaction, id, by)?, by)?;
    let after = before.after(change);
    if let Some(Before { title, visibility, password_hash }) = &after {
        let sql =
            "UPDATE conversations SET title = ?2, visibility = ?3, password_hash = ?4, rev = rev + 1 WHERE id = ?1";
        execute(transaction, sql, params![id.as_str(), title, visibility.as_str(), password_hash])?;
    }
    let outcome = ConversationChanged {
        changed: after.is_some(),
        conversation: conversations::view(transaction, id, None)?,
        members: Arc::new(members(transaction, id)?),
    };
    if outcome.changed {
        outbox::write(transaction, outbox, &outcome)?;
    }
    Ok(outcome)
}

fn delete_conversation(
    transaction: &Connection,
    id: &ConversationId,
    by: Option<&UserId>,
    outbox: &OutboxRow<ConversationDeleted>,
) -> Result<ConversationDeleted, StoreError> {
    let sql = "SELECT last_seq FROM conversations WHERE id = ?1 AND deleted_at IS NULL";
    let last_seq = row(transaction, sql, [id.as_str()], |row| number(row, "last_seq"))?.ok_or(Refusal::NotFound)?;
    may_delete(standing(transaction, id, by)?, by)?;
    let of = |state: &str| {
        let sql = "SELECT user_id FROM members WHERE conversation_id = ?1 AND state = ?2 ORDER BY user_id";
        rows(transaction, sql, [id.as_str(), state], |row| parsed(row, "user_id", str::parse))
    };
    let (members, invited) = (of("accepted")?, of("invited")?);
    let sql = "UPDATE members SET left_seq = CASE WHEN state = 'accepted' THEN ?2 ELSE left_seq END, \
        state = 'left', role = 'member' WHERE conversation_id = ?1";
    execute(transaction, sql, params![id.as_str(), integer(last_seq)])?;
    let now = now_ms();
    let sql = "UPDATE conversations SET deleted_at = ?2, pair_key = NULL, title = NULL, password_hash = NULL, \
        blocked = false, rev = rev + 1, members_version = members_version + 1, member_count = 0, \
        members_seq = last_seq WHERE id = ?1";
    execute(transaction, sql, params![id.as_str(), now])?;
    empty(transaction, id, 0)?;
    if last_seq > EMPTIED_PER_STEP {
        let sql = "INSERT INTO emptying (conversation_id, seq) VALUES (?1, ?2)";
        execute(transaction, sql, params![id.as_str(), integer(EMPTIED_PER_STEP)])?;
    }
    let outcome = ConversationDeleted { at: Timestamp::from_unix_ms(now), last_seq, members, invited };
    outbox::write(transaction, outbox, &outcome)?;
    Ok(outcome)
}

/// Empties the messages of a deleted conversation after `seq`, as many as one step takes.
fn empty(change: &Connection, id: &ConversationId, seq: u64) -> Result<(), StoreError> {
    let (after, up_to) = (integer(seq), integer(seq + EMPTIED_PER_STEP));
    let sql = "DELETE FROM edits WHERE message_id IN (\
        SELECT id FROM messages WHERE conversation_id = ?1 AND seq > ?2 AND seq <= ?3)";
    execute(change, sql, params![id.as_str(), after, up_to])?;
    let sql = "UPDATE messages SET content = '', data = NULL, reactions = NULL, deleted_at = coalesce(deleted_at, ?4) \
        WHERE conversation_id = ?1 AND seq > ?2 AND seq <= ?3";
    execute(change, sql, params![id.as_str(), after, up_to, now_ms()]).map(drop)
}

fn empty_deleted(change: &Connection) -> Result<bool, StoreError> {
    let sql = "SELECT e.conversation_id, e.seq, c.last_seq FROM emptying e \
        JOIN conversations c ON c.id = e.conversation_id ORDER BY e.conversation_id LIMIT 1";
    let next = row(change, sql, [], |row| {
        let id: ConversationId = parsed(row, "conversation_id", str::parse)?;
        Ok((id, number(row, "seq")?, number(row, "last_seq")?))
    })?;
    let Some((id, seq, last_seq)) = next else { return Ok(false) };
    empty(change, &id, seq)?;
    if seq + EMPTIED_PER_STEP < last_seq {
        let sql = "UPDATE emptying SET seq = ?2 WHERE conversation_id = ?1";
        execute(change, sql, params![id.as_str(), integer(seq + EMPTIED_PER_STEP)])?;
    } else {
        execute(change, "DELETE FROM emptying WHERE conversation_id = ?1", [id.as_str()])?;
    }
    Ok(true)
}
