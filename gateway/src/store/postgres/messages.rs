//! Messages: reading pages. `send` and `plain` store them.

use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use shared::{ConversationId, Message};

use super::call::{on_connection, query};
use super::pool::PostgresStore;
use super::rows::{bigint, message, message_columns};
use super::send::send;
use crate::store::{Messages, Page, SendBatch, SentBatch, StoreError};

#[async_trait]
impl Messages for PostgresStore {
    async fn send(&self, batch: &SendBatch) -> Result<SentBatch, StoreError> {
        on_connection!(self, Commit: client => send(client, batch))
    }

    async fn messages(&self, id: &ConversationId, page: Page, limit: u32) -> Result<Vec<Message>, StoreError> {
        on_connection!(self, client => messages(client, id, page, limit))
    }
}

async fn messages(
    client: &impl GenericClient,
    id: &ConversationId,
    page: Page,
    limit: u32,
) -> Result<Vec<Message>, StoreError> {
    const NEWEST: &str = concat!(
        "SELECT ",
        message_columns!(),
        " FROM messages m WHERE m.conversation_id = $1 AND m.seq < $2 ORDER BY m.seq DESC LIMIT $3"
    );
    const AFTER: &str = concat!(
        "SELECT ",
        message_columns!(),
        " FROM messages m WHERE m.conversation_id = $1 AND m.seq > $2 ORDER BY m.seq LIMIT $3"
    );
    const CHANGED: &str = concat!(
        "SELECT ",
        message_columns!(),
        " FROM messages m WHERE m.conversation_id = $1 AND m.rev > $2 ORDER BY m.rev LIMIT $3"
    );
    let (sql, bound, backwards) = match page {
        Page::Newest => (NEWEST, i64::MAX, true),
        Page::Before(seq) => (NEWEST, bigint(seq), true),
        Page::After(seq) => (AFTER, bigint(seq), false),
        Page::ChangedSince(rev) => (CHANGED, bigint(rev), false),
    };
    let rows = query(client, sql, &[&id.as_str(), &bound, &i64::from(limit)]).await?;
    let mut page = rows.iter().map(message).collect::<Result<Vec<_>, _>>()?;
    if backwards {
        page.reverse();
    }
    Ok(page)
}
