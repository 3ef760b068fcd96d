//! Messages: reading pages. `send` stores them.

use async_trait::async_trait;
use rusqlite::{Connection, params};
use shared::{ConversationId, Message};

use super::rows::{integer, message, message_columns, rows};
use super::send::send;
use super::thread::SqliteStore;
use crate::store::{Messages, Page, SendBatch, SentBatch, StoreError};

const BEFORE: &str = concat!(
    "SELECT ",
    message_columns!(),
    " FROM messages m WHERE m.conversation_id = ?1 AND m.seq < ?2 ORDER BY m.seq DESC LIMIT ?3"
);
const AFTER: &str = concat!(
    "SELECT ",
    message_columns!(),
    " FROM messages m WHERE m.conversation_id = ?1 AND m.seq > ?2 ORDER BY m.seq LIMIT ?3"
);
const CHANGED: &str = concat!(
    "SELECT ",
    message_columns!(),
    " FROM messages m WHERE m.conversation_id = ?1 AND m.rev > ?2 ORDER BY m.rev LIMIT ?3"
);

#[async_trait]
impl Messages for SqliteStore {
    async fn send(&self, batch: &SendBatch) -> Result<SentBatch, StoreError> {
        let batch = batch.clone();
        self.write(move |change| send(change, &batch)).await
    }

    async fn messages(&self, id: &ConversationId, page: Page, limit: u32) -> Result<Vec<Message>, StoreError> {
        let id = id.clone();
        self.read(move |read| messages(read, &id, page, limit)).await
    }
}

fn messages(read: &Connection, id: &ConversationId, page: Page, limit: u32) -> Result<Vec<Message>, StoreError> {
    let (sql, bound, backwards) = match page {
        Page::Newest => (BEFORE, i64::MAX, true),
        Page::Before(seq) => (BEFORE, integer(seq), true),
        Page::After(seq) => (AFTER, integer(seq), false),
        Page::ChangedSince(rev) => (CHANGED, integer(rev), false),
    };
    let mut page = rows(read, sql, params![id.as_str(), bound, limit], message)?;
    if backwards {
        page.reverse();
    }
    Ok(page)
}
