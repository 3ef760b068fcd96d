//! Edits, deletions and reactions: read and decided without a lock, written by one call that looks whether that still holds.

use std::sync::Arc;

use async_trait::async_trait;
use deadpool_postgres::{GenericClient, Object};
use futures_util::future::try_join;
use shared::{ConversationId, Message, MessageId, UserId};
use tokio_postgres::types::ToSql;

use super::call::{on_connection, query_opt, until_it_holds};
use super::membership::{audience, standing};
use super::moderation::is_muted;
use super::outbox::RowArguments;
use super::owed::Made;
use super::pool::PostgresStore;
use super::rows::{bigint, get, message, message_columns, number, placeholder, system_time, time, unfit, unsigned};
use crate::store::changes::{
    Changes, EARLIER_CONTENTS_MAX, Facts, MessageChange, MessageOutcome, apply, reactions_column,
};
use crate::store::membership::{Standing, State};
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

/// How often a change is tried again because another came in between. Each time one of them was made.
const TRIES_MAX: u32 = 200;

async fn change_message(
    client: &Object,
    id: MessageId,
    by: Option<&UserId>,
    change: &MessageChange,
    row: &OutboxRow<MessageOutcome>,
) -> Result<MessageOutcome, StoreError> {
    until_it_holds("message", TRIES_MAX, |_| try_once(client, id, by, change, row)).await
}

/// Reads, decides, and has it written by one call; `None` if something was changed in between.
async fn try_once(
    client: &Object,
    id: MessageId,
    by: Option<&UserId>,
    change: &MessageChange,
    row: &OutboxRow<MessageOutcome>,
) -> Result<Option<MessageOutcome>, StoreError> {
    let (before, now) = stored(client, id).await?;
    let conversation = &before.conversation_id;
    let (members, last_seq) = try_join(audience(client, conversation), last_seq(client, conversation)).await?;
    let standing = match by.and_then(|by| members.role(by)) {
        Some(role) => Some(Standing { state: State::Accepted, role }),
        None => match standing(client, conversation, by).await? {
            // They came in after the members were read, unless nobody is listed.
            Some(Standing { state: State::Accepted, role: _ }) if !members.route.large => return Ok(None),
            other => other,
        },
    };
    let facts = Facts { by, standing, blocked: members.blocked, now };
    let mut message = before.clone();
    let changed = apply(&mut message, &facts, change)?;
    // Whoever may not write may not edit either.
    let writer = if matches!(change, MessageChange::Edit { .. }) { by } else { None };
    if is_muted(client, conversation, writer).await? {
        return Err(Refusal::Muted.into());
    }
    let version = members.version;
    let is_last = message.seq == last_seq;
    if changed {
        message.rev = placeholder();
    }
    let mut outcome = MessageOutcome { changed, message, is_last, members: Arc::new(members) };
    if !changed {
        return Ok(Some(outcome));
    }
    let arguments = RowArguments::of(row, &outcome)?;
    let Some(rev) = write(client, (&before, version, writer), &outcome, &arguments).await? else { return Ok(None) };
    outcome.message.rev = rev;
    // Once more, with the rev in place of the placeholder: these are the events that are published.
    drop((row.events)(&outcome));
    Ok(Some(outcome))
}

async fn last_seq(client: &impl GenericClient, conversation: &ConversationId) -> Result<u64, StoreError> {
    let sql = "SELECT last_seq FROM conversations WHERE id = $1 AND deleted_at IS NULL";
    number(&query_opt(client, sql, &[&conversation.as_str()]).await?.ok_or(Refusal::NotFound)?, "last_seq")
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

/// The new `rev`; `None` if something was changed since it was read: the message, the members, or whether `writer`, if there
/// is one, may write.
async fn write(
    client: &impl GenericClient,
    (before, members_version, writer): (&Message, u64, Option<&UserId>),
    outcome: &MessageOutcome,
    row: &RowArguments,
) -> Result<Option<u64>, StoreError> {
    let sql = "SELECT parley_change_message($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, \
        $19, $20) AS rev";
    let after = &outcome.message;
    let (edited, deleted) = (after.edited_at.map(system_time), after.deleted_at.map(system_time));
    let reactions = reactions_column(after)?;
    let earlier = (before.content != after.content).then_some(&before.content);
    let own: [&(dyn ToSql + Sync); 13] = [
        &bigint(after.id.get()),
        &after.conversation_id.as_str(),
        &bigint(before.rev),
        &bigint(members_version),
        &outcome.is_last,
        &writer.map(UserId::as_str),
        &after.content,
        &edited,
        &deleted,
        &reactions,
        &earlier,
        &bigint(EARLIER_CONTENTS_MAX),
        &after.rev.to_string(),
    ];
    let made = Made { when: "done.rev IS NOT NULL", rev: "done.rev" };
    let answer = row.call(client, sql, &own, made).await?.ok_or_else(|| unfit("rev"))?;
    get::<Option<i64>>(&answer, "rev")?.map(|rev| unsigned(rev, "rev")).transpose()
}
