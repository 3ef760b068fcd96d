//! What a change owes a backend's webhook, written in the change's transaction.

use rusqlite::{Connection, params};
use shared::Timestamp;

use super::rows::{execute, integer, now_ms};
use crate::store::{OwedDetail, OwedEvent, OwedKind, SendOutcome, SentBatch, StoreError};

/// Writes the events of a change.
pub(super) fn write(change: &Connection, events: &[OwedEvent]) -> Result<(), StoreError> {
    write_at(change, events, now_ms())
}

fn write_at(change: &Connection, events: &[OwedEvent], at: i64) -> Result<(), StoreError> {
    let sql = "INSERT INTO webhook_events (kind, conversation_id, rev, message_id, detail, at) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    for event in events {
        let (rev, message) = (event.rev.map(integer), event.message.map(|id| integer(id.get())));
        let (kind, detail) = (event.kind.as_str(), event.detail_column()?);
        execute(change, sql, params![kind, event.conversation.as_str(), rev, message, detail, at])?;
    }
    Ok(())
}

/// Writes the events of a batch of that time: the conversations that it opened, and its messages.
pub(super) fn write_sent(change: &Connection, sent: &SentBatch, at: Timestamp) -> Result<(), StoreError> {
    let opened = sent.opened.iter().map(|direct| OwedEvent {
        kind: OwedKind::ConversationCreated,
        conversation: direct.id.clone(),
        rev: None,
        message: None,
        detail: OwedDetail::default(),
    });
    let messages = sent.outcomes.iter().filter_map(|outcome| match outcome {
        SendOutcome::Stored(stored) => Some(OwedEvent {
            kind: OwedKind::MessageCreated,
            conversation: stored.message.conversation_id.clone(),
            rev: Some(stored.message.rev),
            message: Some(stored.message.id),
            detail: OwedDetail::default(),
        }),
        SendOutcome::Duplicate(_) | SendOutcome::Refused(_) | SendOutcome::Busy(_) => None,
    });
    write_at(change, &opened.chain(messages).collect::<Vec<_>>(), at.unix_ms())
}
