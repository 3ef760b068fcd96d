//! The group commit: one call of a function, one round trip. `parley_send_plain` stores plain batches; `parley_send`
//! judges every message of the others.

use std::collections::HashMap;

use deadpool_postgres::{GenericClient, Object};
use shared::Message;
use tokio_postgres::Row;

use super::call::query;
use super::errors::is_worth_a_retry;
use super::plain::PlainBatch;
use super::rows::{bigint, get, index, message_id, number, parsed, reactions, time, time_or_null, unfit};
use crate::store::{NewMessage, Refusal, SendBatch, SendOutcome, StoreError, StoredMessage};

const SEND: &str = "SELECT * FROM parley_send($1, $2, $3, $4, $5, $6, $7, $8, $9)";

/// How often a batch is tried that other transactions aborted.
const TRIES: u32 = 2;

/// Stores the batch. It tries once more, with the same ids, if locks or rows of other transactions aborted it.
pub(super) async fn send(client: &Object, batch: &SendBatch) -> Result<Vec<SendOutcome>, StoreError> {
    if batch.messages.is_empty() {
        return Ok(Vec::new());
    }
    let plain = PlainBatch::of(batch);
    let mut tried = 1;
    let answer = loop {
        match ask(client, batch, &plain).await {
            Err(error) if tried < TRIES && is_worth_a_retry(&error) => tried += 1,
            result => break result?,
        }
    };
    match answer {
        Answer::Plain(row) => plain.outcomes(&row),
        Answer::Judged(rows) => {
            let mut outcomes = outcomes(batch, &rows)?;
            add_reactions(client, &mut outcomes).await?;
            Ok(outcomes)
        }
    }
}

enum Answer {
    Plain(Row),
    Judged(Vec<Row>),
}

async fn ask(client: &Object, batch: &SendBatch, plain: &PlainBatch<'_>) -> Result<Answer, tokio_postgres::Error> {
    match plain.store(client).await? {
        Some(row) => Ok(Answer::Plain(row)),
        None => call(client, batch).await.map(Answer::Judged),
    }
}

/// Adds the reactions of messages that were stored before: the function doesn't return them.
async fn add_reactions(client: &Object, outcomes: &mut [SendOutcome]) -> Result<(), StoreError> {
    let mut originals: HashMap<i64, &mut Message> = outcomes
        .iter_mut()
        .filter_map(|outcome| match outcome {
            SendOutcome::Duplicate(original) => Some((bigint(original.id.get()), original)),
            SendOutcome::Stored(_) | SendOutcome::Refused(_) => None,
        })
        .collect();
    if originals.is_empty() {
        return Ok(());
    }
    let ids: Vec<i64> = originals.keys().copied().collect();
    let sql = "SELECT id, reactions FROM messages WHERE id = ANY ($1) AND reactions IS NOT NULL";
    for row in query(client, sql, &[&ids]).await? {
        if let Some(original) = originals.get_mut(&get(&row, "id")?) {
            original.reactions = reactions(get(&row, "reactions")?, "reactions")?;
        }
    }
    Ok(())
}

async fn call(client: &Object, batch: &SendBatch) -> Result<Vec<Row>, tokio_postgres::Error> {
    let messages = &batch.messages;
    let ids: Vec<i64> = messages.iter().map(|message| bigint(message.id.get())).collect();
    let conversations: Vec<&str> = messages.iter().map(|message| message.conversation.as_str()).collect();
    let senders: Vec<&str> = messages.iter().map(|message| message.sender.as_str()).collect();
    let temp_ids: Vec<Option<&str>> = messages.iter().map(|message| message.temp_id.as_deref()).collect();
    let kinds: Vec<&str> = messages.iter().map(|message| message.kind.as_str()).collect();
    let contents: Vec<&str> = messages.iter().map(|message| message.content.as_str()).collect();
    let replies: Vec<Option<i64>> =
        messages.iter().map(|message| message.reply_to.map(|id| bigint(id.get()))).collect();
    let statement = client.prepare_cached(SEND).await?;
    client
        .query(
            &statement,
            &[
                &bigint(batch.id),
                &&*batch.owner,
                &ids,
                &conversations,
                &senders,
                &temp_ids,
                &kinds,
                &contents,
                &replies,
            ],
        )
        .await
}

/// The outcomes, from the function's rows, which are in the order of the messages.
fn outcomes(batch: &SendBatch, rows: &[Row]) -> Result<Vec<SendOutcome>, StoreError> {
    if rows.len() != batch.messages.len() {
        return Err(StoreError::Failed(format!("{} outcomes for {} messages", rows.len(), batch.messages.len())));
    }
    let mut outcomes: Vec<SendOutcome> = Vec::with_capacity(rows.len());
    for (new, row) in batch.messages.iter().zip(rows) {
        let outcome = match get::<&str>(row, "out_outcome")? {
            "stored" => SendOutcome::Stored(stored(new, row)?),
            "duplicate" => new.under_a_used_temp_id(original(new, row)?),
            "twin" => new.under_a_used_temp_id(twin(&outcomes, row)?),
            "not_found" => SendOutcome::Refused(Refusal::NotFound),
            "not_member" => SendOutcome::Refused(Refusal::NotMember),
            "banned" => SendOutcome::Refused(Refusal::Banned),
            "blocked" => SendOutcome::Refused(Refusal::Blocked),
            _ => return Err(unfit("out_outcome")),
        };
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

/// A retry after an uncertain commit finds the message as it is now: it may have been edited already.
fn stored(new: &NewMessage, row: &Row) -> Result<StoredMessage, StoreError> {
    let members_version = number(row, "out_members_version")?;
    if get::<Option<i64>>(row, "out_id")?.is_some() {
        return Ok(StoredMessage { message: original(new, row)?, members_version });
    }
    let (seq, rev) = (number(row, "out_seq")?, number(row, "out_rev")?);
    let message = new.stored(seq, rev, time(row, "out_created_at")?);
    Ok(StoredMessage { message, members_version })
}

fn original(new: &NewMessage, row: &Row) -> Result<Message, StoreError> {
    let reply_to: Option<i64> = get(row, "out_reply_to")?;
    Ok(Message {
        id: message_id(get(row, "out_id")?, "out_id")?,
        conversation_id: parsed(row, "out_conversation_id", str::parse)?,
        seq: number(row, "out_seq")?,
        rev: number(row, "out_rev")?,
        sender_id: new.sender.clone(),
        kind: get(row, "out_kind")?,
        content: get(row, "out_content")?,
        temp_id: new.temp_id.clone(),
        reply_to: reply_to.map(|id| message_id(id, "out_reply_to")).transpose()?,
        created_at: time(row, "out_created_at")?,
        edited_at: time_or_null(row, "out_edited_at")?,
        deleted_at: time_or_null(row, "out_deleted_at")?,
        reactions: std::collections::BTreeMap::new(),
    })
}

/// The earlier message of the batch with the same `temp_id`.
fn twin(earlier: &[SendOutcome], row: &Row) -> Result<Message, StoreError> {
    match earlier.get(index(row, "out_twin")?) {
        Some(SendOutcome::Stored(stored)) => Ok(stored.message.clone()),
        Some(SendOutcome::Duplicate(_) | SendOutcome::Refused(_)) | None => Err(unfit("out_twin")),
    }
}
