//! Changes of whole conversations: read and decided without a lock, written by one call that looks whether that still holds.
//! And the emptying of those that were deleted.

use std::sync::Arc;

use async_trait::async_trait;
use deadpool_postgres::{GenericClient, Object};
use shared::{ConversationId, ConversationKind, Timestamp, UserId, Visibility};
use tokio_postgres::types::ToSql;

use super::call::{on_connection, query, query_opt, until_it_holds};
use super::conversations;
use super::membership::{TRIES_MAX, members, standing};
use super::outbox::RowArguments;
use super::owed::Made;
use super::pool::PostgresStore;
use super::rows::{bigint, get, number, parsed, placeholder, system_time, time, unfit, unsigned, word};
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
        on_connection!(self, Change: client => change_conversation(client, id, by, change, &outbox))
    }

    async fn delete_conversation(
        &self,
        id: &ConversationId,
        by: Option<&UserId>,
        outbox: OutboxRow<ConversationDeleted>,
    ) -> Result<ConversationDeleted, StoreError> {
        on_connection!(self, Change: client => delete_conversation(client, id, by, &outbox))
    }

    async fn empty_deleted(&self) -> Result<bool, StoreError> {
        on_connection!(self, client => empty_deleted(client))
    }
}

async fn change_conversation(
    client: &Object,
    id: &ConversationId,
    by: Option<&UserId>,
    change: &ConversationChange,
    row: &OutboxRow<ConversationChanged>,
) -> Result<ConversationChanged, StoreError> {
    until_it_holds("conversation", TRIES_MAX, |_| try_change(client, id, by, change, row)).await
}

/// Reads, decides, and has it written by one call; `None` if something was changed in between.
async fn try_change(
    client: &Object,
    id: &ConversationId,
    by: Option<&UserId>,
    change: &ConversationChange,
    row: &OutboxRow<ConversationChanged>,
) -> Result<Option<ConversationChanged>, StoreError> {
    // First of all: whatever is read behind it is as new as this version, if that is still the one under the lock.
    let list = members(client, id).await?;
    let sql = "SELECT kind, title, visibility, password_hash FROM conversations WHERE id = $1 AND deleted_at IS NULL";
    let head = query_opt(client, sql, &[&id.as_str()]).await?.ok_or(Refusal::NotFound)?;
    may_change(word(&head, "kind", ConversationKind::parse)?, standing(client, id, by).await?, by)?;
    let before = Before {
        title: get(&head, "title")?,
        visibility: word(&head, "visibility", Visibility::parse)?,
        password_hash: get(&head, "password_hash")?,
    };
    let version = list.version;
    let mut outcome = ConversationChanged {
        changed: false,
        conversation: conversations::view(client, id, None).await?,
        members: Arc::new(list),
    };
    let Some(after) = before.after(change) else { return Ok(Some(outcome)) };
    let conversation = &mut outcome.conversation;
    conversation.title.clone_from(&after.title);
    conversation.visibility = after.visibility;
    conversation.has_password = after.password_hash.is_some();
    (conversation.rev, conversation.last_seq) = (placeholder(), placeholder());
    outcome.changed = true;
    let written = (version, &before, &after);
    let Some((rev, last_seq)) = write(client, &outcome, written, &RowArguments::of(row, &outcome)?).await? else {
        return Ok(None);
    };
    (outcome.conversation.rev, outcome.conversation.last_seq) = (rev, last_seq);
    // Once more, with the numbers in place of the placeholders: these are the events that are published.
    drop((row.events)(&outcome));
    Ok(Some(outcome))
}

/// The new `rev` and the newest message; `None` if something was changed since it was read.
async fn write(
    client: &impl GenericClient,
    outcome: &ConversationChanged,
    (version, before, after): (u64, &Before, &Before),
    row: &RowArguments,
) -> Result<Option<(u64, u64)>, StoreError> {
    let sql = "SELECT * FROM parley_change_conversation($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, \
        $16, $17)";
    let conversation = &outcome.conversation;
    let own: [&(dyn ToSql + Sync); 10] = [
        &conversation.id.as_str(),
        &bigint(version),
        &before.title,
        &before.visibility.as_str(),
        &before.password_hash,
        &after.title,
        &after.visibility.as_str(),
        &after.password_hash,
        &conversation.rev.to_string(),
        &conversation.last_seq.to_string(),
    ];
    let made = Made { when: "done.out_rev IS NOT NULL", rev: "done.out_rev" };
    let answer = row.call(client, sql, &own, made).await?.ok_or_else(|| unfit("out_rev"))?;
    match get::<Option<i64>>(&answer, "out_rev")? {
        Some(rev) => Ok(Some((unsigned(rev, "out_rev")?, number(&answer, "out_last_seq")?))),
        None => Ok(None),
    }
}

async fn delete_conversation(
    client: &Object,
    id: &ConversationId,
    by: Option<&UserId>,
    row: &OutboxRow<ConversationDeleted>,
) -> Result<ConversationDeleted, StoreError> {
    until_it_holds("conversation", TRIES_MAX, |_| try_delete(client, id, by, row)).await
}

/// The same as [`try_change`], for the conversation's end.
async fn try_delete(
    client: &Object,
    id: &ConversationId,
    by: Option<&UserId>,
    row: &OutboxRow<ConversationDeleted>,
) -> Result<Option<ConversationDeleted>, StoreError> {
    let sql = "SELECT members_version, pair_key, date_trunc('milliseconds', clock_timestamp()) AS now \
        FROM conversations WHERE id = $1 AND deleted_at IS NULL";
    let head = query_opt(client, sql, &[&id.as_str()]).await?.ok_or(Refusal::NotFound)?;
    may_delete(standing(client, id, by).await?, by)?;
    let (members, invited) = members_and_invited(client, id).await?;
    let at: Timestamp = time(&head, "now")?;
    let mut outcome = ConversationDeleted { at, last_seq: placeholder(), members, invited };
    let arguments = RowArguments::of(row, &outcome)?;
    let sql = "SELECT parley_delete_conversation($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) AS last_seq";
    let own: [&(dyn ToSql + Sync); 6] = [
        &id.as_str(),
        &get::<Option<&str>>(&head, "pair_key")?,
        &get::<i64>(&head, "members_version")?,
        &system_time(at),
        &bigint(EMPTIED_PER_STEP),
        &outcome.last_seq.to_string(),
    ];
    let made = Made { when: "done.last_seq IS NOT NULL", rev: "NULL::bigint" };
    let answer = arguments.call(client, sql, &own, made).await?.ok_or_else(|| unfit("last_seq"))?;
    let Some(last_seq) = get::<Option<i64>>(&answer, "last_seq")? else { return Ok(None) };
    outcome.last_seq = unsigned(last_seq, "last_seq")?;
    drop((row.events)(&outcome));
    Ok(Some(outcome))
}

async fn members_and_invited(
    client: &impl GenericClient,
    id: &ConversationId,
) -> Result<(Vec<UserId>, Vec<UserId>), StoreError> {
    let sql = "SELECT user_id, state = 'accepted' AS is_member FROM members \
        WHERE conversation_id = $1 AND state IN ('accepted', 'invited') ORDER BY user_id";
    let (mut members, mut invited) = (Vec::new(), Vec::new());
    for row in query(client, sql, &[&id.as_str()]).await? {
        let user: UserId = parsed(&row, "user_id", str::parse)?;
        if get(&row, "is_member")? { members.push(user) } else { invited.push(user) }
    }
    Ok((members, invited))
}

async fn empty_deleted(client: &impl GenericClient) -> Result<bool, StoreError> {
    let sql = "SELECT parley_empty_deleted($1) AS emptied";
    let answer = query_opt(client, sql, &[&bigint(EMPTIED_PER_STEP)]).await?.ok_or_else(|| unfit("emptied"))?;
    get(&answer, "emptied")
}
