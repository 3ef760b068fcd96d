//! Changes of whole conversations, under their lock, and the emptying of those that were deleted.

use std::sync::Arc;

use async_trait::async_trait;
use deadpool_postgres::{GenericClient, Object};
use shared::{ConversationId, ConversationKind, UserId, Visibility};

use super::call::{execute, on_connection, query, query_opt};
use super::membership::{members, standing};
use super::pool::PostgresStore;
use super::rows::{bigint, get, number, parsed, time, word};
use super::{conversations, outbox};
use crate::store::conversation_changes::{Before, EMPTIED_PER_STEP, may_change, may_delete};
use crate::store::{
    ConversationChange, ConversationChanged, ConversationChanges, ConversationDeleted, OutboxRow, Refusal, StoreError,
};

#[async_trait]
impl ConversationChanges for PostgresStore {
    async fn change_conversation(
        &self,
        id: &ConversationId,
        by: Option<&UserId>,
        change: &ConversationChange,
        outbox: OutboxRow<ConversationChanged>,
    ) -> Result<ConversationChanged, StoreError> {
        on_connection!(self, client => change_conversation(client, id, by, change, &outbox))
    }

    async fn delete_conversation(
        &self,
        id: &ConversationId,
        by: Option<&UserId>,
        outbox: OutboxRow<ConversationDeleted>,
    ) -> Result<ConversationDeleted, StoreError> {
        on_connection!(self, client => delete_conversation(client, id, by, &outbox))
    }

    async fn empty_deleted(&self) -> Result<bool, StoreError> {
        on_connection!(self, client => empty_deleted(client))
    }
}

async fn change_conversation(
    client: &mut Object,
    id: &ConversationId,
    by: Option<&UserId>,
    change: &ConversationChange,
    row: &OutboxRow<ConversationChanged>,
) -> Result<ConversationChanged, StoreError> {
    let transaction = client.transaction().await?;
    let lock = "SELECT kind, title, visibility, password_hash FROM conversations \
        WHERE id = $1 AND deleted_at IS NULL FOR NO KEY UPDATE";
    let head = query_opt(&transaction, lock, &[&id.as_str()]).await?.ok_or(Refusal::NotFound)?;
    may_change(word(&head, "kind", ConversationKind::parse)?, standing(&transaction, id, by).await?, by)?;
    let before = Before {
        title: get(&head, "title")?,
        visibility: word(&head, "visibility", Visibility::parse)?,
        password_hash: get(&head, "password_hash")?,
    };
    let after = before.after(change);
    if let Some(Before { title, visibility, password_hash }) = &after {
        let sql =
            "UPDATE conversations SET title = $2, visibility = $3, password_hash = $4, rev = rev + 1 WHERE id = $1";
        execute(&transaction, sql, &[&id.as_str(), title, &visibility.as_str(), password_hash]).await?;
    }
    let outcome = ConversationChanged {
        changed: after.is_some(),
        conversation: conversations::view(&transaction, id, None).await?,
        members: Arc::new(members(&transaction, id).await?),
    };
    if outcome.changed {
        outbox::write(&transaction, row, &outcome).await?;
    }
    transaction.commit().await?;
    Ok(outcome)
}

async fn delete_conversation(
    client: &mut Object,
    id: &ConversationId,
    by: Option<&UserId>,
    row: &OutboxRow<ConversationDeleted>,
) -> Result<ConversationDeleted, StoreError> {
    let transaction = client.transaction().await?;
    let lock = "SELECT last_seq FROM conversations WHERE id = $1 AND deleted_at IS NULL FOR UPDATE";
    let head = query_opt(&transaction, lock, &[&id.as_str()]).await?.ok_or(Refusal::NotFound)?;
    may_delete(standing(&transaction, id, by).await?, by)?;
    let last_seq = number(&head, "last_seq")?;
    let sql = "SELECT user_id, state = 'accepted' AS is_member FROM members \
        WHERE conversation_id = $1 AND state IN ('accepted', 'invited') ORDER BY user_id";
    let (mut members, mut invited) = (Vec::new(), Vec::new());
    for row in query(&transaction, sql, &[&id.as_str()]).await? {
        let user: UserId = parsed(&row, "user_id", str::parse)?;
        if get(&row, "is_member")? { members.push(user) } else { invited.push(user) }
    }
    let sql = "UPDATE members SET left_seq = CASE WHEN state = 'accepted' THEN $2 ELSE left_seq END, \
        state = 'left', role = 'member' WHERE conversation_id = $1";
    execute(&transaction, sql, &[&id.as_str(), &bigint(last_seq)]).await?;
    let sql = "UPDATE conversations SET deleted_at = date_trunc('milliseconds', clock_timestamp()), pair_key = NULL, \
            title = NULL, password_hash = NULL, blocked = false, rev = rev + 1, members_version = members_version + 1, \
            member_count = 0, members_seq = last_seq \
        WHERE id = $1 RETURNING deleted_at";
    let ended = query_opt(&transaction, sql, &[&id.as_str()]).await?.ok_or(Refusal::NotFound)?;
    empty(&transaction, id, 0).await?;
    if last_seq > EMPTIED_PER_STEP {
        let sql = "INSERT INTO emptying (conversation_id, seq) VALUES ($1, $2)";
        execute(&transaction, sql, &[&id.as_str(), &bigint(EMPTIED_PER_STEP)]).await?;
    }
    let outcome = ConversationDeleted { at: time(&ended, "deleted_at")?, last_seq, members, invited };
    outbox::write(&transaction, row, &outcome).await?;
    transaction.commit().await?;
    Ok(outcome)
}

/// Empties the messages of a deleted conversation after `seq`, as many as one step takes.
async fn empty(client: &impl GenericClient, id: &ConversationId, seq: u64) -> Result<(), StoreError> {
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
        [&id.as_str(), &bigint(seq), &bigint(seq + EMPTIED_PER_STEP)];
    let sql = "DELETE FROM edits e USING messages m WHERE e.message_id = m.id \
        AND m.conversation_id = $1 AND m.seq > $2 AND m.seq <= $3";
    execute(client, sql, &parameters).await?;
    let sql = "UPDATE messages SET content = '', data = NULL, reactions = NULL, \
            deleted_at = coalesce(deleted_at, date_trunc('milliseconds', clock_timestamp())) \
        WHERE conversation_id = $1 AND seq > $2 AND seq <= $3";
    execute(client, sql, &parameters).await.map(drop)
}

async fn empty_deleted(client: &mut Object) -> Result<bool, StoreError> {
    let transaction = client.transaction().await?;
    let sql = "SELECT e.conversation_id, e.seq, c.last_seq FROM emptying e \
        JOIN conversations c ON c.id = e.conversation_id ORDER BY e.conversation_id LIMIT 1 FOR UPDATE OF e SKIP LOCKED";
    let Some(next) = query_opt(&transaction, sql, &[]).await? else { return Ok(false) };
    let id: ConversationId = parsed(&next, "conversation_id", str::parse)?;
    let (seq, last_seq) = (number(&next, "seq")?, number(&next, "last_seq")?);
    empty(&transaction, &id, seq).await?;
    if seq + EMPTIED_PER_STEP < last_seq {
        let sql = "UPDATE emptying SET seq = $2 WHERE conversation_id = $1";
        execute(&transaction, sql, &[&id.as_str(), &bigint(seq + EMPTIED_PER_STEP)]).await?;
    } else {
        execute(&transaction, "DELETE FROM emptying WHERE conversation_id = $1", &[&id.as_str()]).await?;
    }
    transaction.commit().await?;
    Ok(true)
}
