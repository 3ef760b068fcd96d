//! Edits, deletions and reactions: one message.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, params};
use shared::{Message, MessageId, Timestamp, UserId};

use super::membership::{audience, standing};
use super::moderation::is_muted;
use super::outbox;
use super::rows::{execute, get, integer, message, message_columns, now_ms, number, row};
use super::thread::SqliteStore;
use crate::store::changes::{
    Changes, EARLIER_CONTENTS_MAX, Facts, MessageChange, MessageOutcome, apply, reactions_column,
};
use crate::store::{OutboxRow, Refusal, StoreError};

const BY_ID: &str = concat!("SELECT ", message_columns!(), " FROM messages m WHERE m.id = ?1");

#[async_trait]
impl Changes for SqliteStore {
    async fn change_message(
        &self,
        id: MessageId,
        by: Option<&UserId>,
        change: &MessageChange,
        outbox: OutboxRow<MessageOutcome>,
    ) -> Result<MessageOutcome, StoreError> {
        let (by, what) = (by.cloned(), change.clone());
        self.write(move |change| change_message(change, id, by.as_ref(), &what, &outbox)).await
    }
}

fn change_message(
    transaction: &Connection,
    id: MessageId,
    by: Option<&UserId>,
    change: &MessageChange,
    outbox: &OutboxRow<MessageOutcome>,
) -> Result<MessageOutcome, StoreError> {
    let before: Message = row(transaction, BY_ID, [integer(id.get())], message)?.ok_or(Refusal::NotFound)?;
    let conversation = &before.conversation_id;
    let sql = "SELECT last_seq, rev, blocked FROM conversations WHERE id = ?1 AND deleted_at IS NULL";
    let head = row(transaction, sql, [conversation.as_str()], |row| {
        Ok((number(row, "last_seq")?, number(row, "rev")?, get::<bool>(row, "blocked")?))
    })?;
    let (last_seq, rev, blocked) = head.ok_or(Refusal::NotFound)?;
    let standing = standing(transaction, conversation, by)?;
    let facts = Facts { by, standing, blocked, now: Timestamp::from_unix_ms(now_ms()) };
    let mut message = before.clone();
    let changed = apply(&mut message, &facts, change)?;
    if matches!(change, MessageChange::Edit { .. }) && is_muted(transaction, conversation, by)? {
        return Err(Refusal::Muted.into());
    }
    if changed {
        message.rev = rev + 1;
        write(transaction, &before, &message)?;
    }
    let members = Arc::new(audience(transaction, conversation)?);
    let outcome = MessageOutcome { changed, is_last: message.seq == last_seq, message, members };
    if changed {
        outbox::write(transaction, outbox, &outcome)?;
    }
    Ok(outcome)
}

fn write(change: &Connection, before: &Message, after: &Message) -> Result<(), StoreError> {
    let (id, rev) = (integer(after.id.get()), integer(after.rev));
    let (edited, deleted) = (after.edited_at.map(Timestamp::unix_ms), after.deleted_at.map(Timestamp::unix_ms));
    let sql = "UPDATE messages SET rev = ?2, content = ?3, edited_at = ?4, deleted_at = ?5, reactions = ?6, \
        data = CASE WHEN ?5 IS NULL THEN data END WHERE id = ?1";
    execute(change, sql, params![id, rev, after.content, edited, deleted, reactions_column(after)?])?;
    let sql = "UPDATE conversations SET rev = ?2 WHERE id = ?1";
    execute(change, sql, params![after.conversation_id.as_str(), rev])?;
    if after.deleted_at.is_some() {
        execute(change, "DELETE FROM edits WHERE message_id = ?1", [id])?;
    } else if before.content != after.content {
        let sql = "INSERT INTO edits (message_id, rev, content, replaced_at) VALUES (?1, ?2, ?3, ?4)";
        execute(change, sql, params![id, integer(before.rev), before.content, edited])?;
        let sql = "DELETE FROM edits WHERE message_id = ?1 AND rev < \
            (SELECT e.rev FROM edits e WHERE e.message_id = ?1 ORDER BY e.rev DESC LIMIT 1 OFFSET ?2)";
        execute(change, sql, params![id, integer(EARLIER_CONTENTS_MAX - 1)])?;
    }
    Ok(())
}
