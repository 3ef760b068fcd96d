//! Edits, deletions and reactions: one message, under its conversation's lock.

use std::sync::Arc;

use async_trait::async_trait;
use deadpool_postgres::{GenericClient, Object};
use futures_util::future::try_join3;
use shared::{ConversationId, Message, MessageId, UserId};

use super::call::{execute, on_connection, query_opt};
use super::membership::{members, standing};
use super::moderation::is_muted;
use super::outbox;
use super::pool::PostgresStore;
use super::rows::{bigint, get, message, message_columns, number, parsed, system_time, time};
use crate::store::changes::{
    Changes, EARLIER_CONTENTS_MAX, Facts, MessageChange, MessageOutcome, apply, reactions_column,
};
use crate::store::{OutboxRow, Refusal, StoreError};

#[async_trait]
impl Changes for PostgresStore {
    async fn change_message(
        &self,
        id: MessageId,
        by: Option<&UserId>,
        change: &MessageChange,
        outbox: OutboxRow<MessageOutcome>,
    ) -> Result<MessageOutcome, StoreError> {
        on_connection!(self, Change: client => change_message(client, id, by, change, &outbox))
    }
}

async fn change_message(
    client: &mut Object,
    id: MessageId,
    by: Option<&UserId>,
    change: &MessageChange,
    row: &OutboxRow<MessageOutcome>,
) -> Result<MessageOutcome, StoreError> {
    let transaction = client.transaction().await?;
    let sql = "SELECT conversation_id FROM messages WHERE id = $1";
    let place = query_opt(&transaction, sql, &[&bigint(id.get())]).await?.ok_or(Refusal::NotFound)?;
    let conversation: ConversationId = parsed(&place, "conversation_id", str::parse)?;
    let lock = "SELECT last_seq, rev, blocked FROM conversations \
        WHERE id = $1 AND deleted_at IS NULL FOR NO KEY UPDATE";
    let head = query_opt(&transaction, lock, &[&conversation.as_str()]).await?.ok_or(Refusal::NotFound)?;
    // From here on every statement sees all commits from before the lock.
    let (before, standing, members) = try_join3(
        stored(&transaction, id),
        standing(&transaction, &conversation, by),
        members(&transaction, &conversation),
    )
    .await?;
    let (before, now) = before;
    let facts = Facts { by, standing, blocked: get(&head, "blocked")?, now };
    let mut message = before.clone();
    let changed = apply(&mut message, &facts, change)?;
    if matches!(change, MessageChange::Edit { .. }) && is_muted(&transaction, &conversation, by).await? {
        return Err(Refusal::Muted.into());
    }
    if changed {
        message.rev = number(&head, "rev")? + 1;
        write(&transaction, &before, &message).await?;
    }
    let is_last = message.seq == number(&head, "last_seq")?;
    let outcome = MessageOutcome { changed, message, is_last, members: Arc::new(members) };
    if changed {
        outbox::write(&transaction, row, &outcome).await?;
    }
    transaction.commit().await?;
    Ok(outcome)
}

/// The message, and the store's time.
async fn stored(client: &impl GenericClient, id: MessageId) -> Result<(Message, shared::Timestamp), StoreError> {
    const SQL: &str = concat!(
        "SELECT ",
        message_columns!(),
        ", date_trunc('milliseconds', clock_timestamp()) AS now FROM messages m WHERE m.id = $1"
    );
    let row = query_opt(client, SQL, &[&bigint(id.get())]).await?.ok_or(Refusal::NotFound)?;
    Ok((message(&row)?, time(&row, "now")?))
}

async fn write(client: &impl GenericClient, before: &Message, after: &Message) -> Result<(), StoreError> {
    let id = bigint(after.id.get());
    let sql = "UPDATE messages SET rev = $2, content = $3, edited_at = $4, deleted_at = $5, reactions = $6, \
        data = CASE WHEN $5::timestamptz IS NULL THEN data END WHERE id = $1";
    let (edited, deleted) = (after.edited_at.map(system_time), after.deleted_at.map(system_time));
    let reactions = reactions_column(after)?;
    execute(client, sql, &[&id, &bigint(after.rev), &after.content, &edited, &deleted, &reactions]).await?;
    let sql = "UPDATE conversations SET rev = $2 WHERE id = $1";
    execute(client, sql, &[&after.conversation_id.as_str(), &bigint(after.rev)]).await?;
    if after.deleted_at.is_some() {
        execute(client, "DELETE FROM edits WHERE message_id = $1", &[&id]).await?;
    } else if before.content != after.content {
        let sql = "INSERT INTO edits (message_id, rev, content, replaced_at) VALUES ($1, $2, $3, $4)";
        execute(client, sql, &[&id, &bigint(before.rev), &before.content, &edited]).await?;
        let sql = "DELETE FROM edits WHERE message_id = $1 AND rev < \
            (SELECT e.rev FROM edits e WHERE e.message_id = $1 ORDER BY e.rev DESC OFFSET $2 LIMIT 1)";
        execute(client, sql, &[&id, &bigint(EARLIER_CONTENTS_MAX - 1)]).await?;
    }
    Ok(())
}
