//! The group commit: one call of a function, one round trip. `parley_send_plain` stores plain batches; `parley_send`
//! judges every message of the others.

use std::collections::{BTreeMap, HashMap};

use deadpool_postgres::{GenericClient, Object};
use shared::{Message, MessageData, UserId};
use tokio_postgres::Row;

use super::call::query;
use super::errors::is_worth_a_retry;
use super::plain::PlainBatch;
use super::rows::{bigint, get, index, message_id, number, parsed, reactions, time, time_or_null, unfit};
use super::send_data::write_data;
use crate::store::{NewMessage, Refusal, SendBatch, SendOutcome, StoreError, StoredMessage};

const SEND: &str = "SELECT * FROM parley_send($1, $2, $3, $4, $5, $6, $7, $8, $9)";

/// How often a batch is tried that other transactions aborted.
const TRIES: u32 = 2;

/// Stores the batch. It tries once more, with the same ids, if locks or rows of other transactions aborted it.
pub(super) async fn send(client: &mut Object, batch: &SendBatch) -> Result<Vec<SendOutcome>, StoreError> {
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
        Answer::Judged(rows) => outcomes(batch, &rows, &kept_beside(client, &rows).await?),
    }
}

enum Answer {
    Plain(Row),
    Judged(Vec<Row>),
}

/// The functions store the messages. A statement behind them stores the data of those that have some, in one
/// transaction; batches without data need none.
async fn ask(client: &mut Object, batch: &SendBatch, plain: &PlainBatch<'_>) -> Result<Answer, tokio_postgres::Error> {
    if batch.messages.iter().all(|message| message.data.is_none()) {
        return match plain.store(&*client).await? {
            Some(row) => Ok(Answer::Plain(row)),
            None => call(&*client, batch).await.map(Answer::Judged),
        };
    }
    let transaction = client.transaction().await?;
    if let Some(row) = plain.store(&transaction).await? {
        write_data(&transaction, batch).await?;
        transaction.commit().await?;
        return Ok(Answer::Plain(row));
    }
    // It stored nothing, and its commit would not wait for the disk.
    transaction.rollback().await?;
    let transaction = client.transaction().await?;
    let rows = call(&transaction, batch).await?;
    write_data(&transaction, batch).await?;
    transaction.commit().await?;
    Ok(Answer::Judged(rows))
}

/// What the function doesn't return of messages that were stored before: their reactions and data, by id.
type KeptBeside = HashMap<i64, (BTreeMap<String, Vec<UserId>>, Option<MessageData>)>;

async fn kept_beside(client: &Object, rows: &[Row]) -> Result<KeptBeside, StoreError> {
    let ids = rows.iter().map(|row| get::<Option<i64>>(row, "out_id")).collect::<Result<Vec<_>, _>>()?;
    let ids: Vec<i64> = ids.into_iter().flatten().collect();
    if ids.is_empty() {
        return Ok(KeptBeside::new());
    }
    let sql = "SELECT id, reactions, data FROM messages \
        WHERE id = ANY ($1) AND (reactions IS NOT NULL OR data IS NOT NULL)";
    let kept = |row: &Row| {
        let data = get::<Option<&str>>(row, "data")?.map(MessageData::kept);
        Ok((get(row, "id")?, (reactions(get(row, "reactions")?, "reactions")?, data)))
    };
    query(client, sql, &[&ids]).await?.iter().map(kept).collect()
}

async fn call(client: &impl GenericClient, batch: &SendBatch) -> Result<Vec<Row>, tokio_postgres::Error> {
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
fn outcomes(batch: &SendBatch, rows: &[Row], beside: &KeptBeside) -> Result<Vec<SendOutcome>, StoreError> {
    if rows.len() != batch.messages.len() {
        return Err(StoreError::Failed(format!("{} outcomes for {} messages", rows.len(), batch.messages.len())));
    }
    let mut outcomes: Vec<SendOutcome> = Vec::with_capacity(rows.len());
    for (new, row) in batch.messages.iter().zip(rows) {
        let outcome = match get::<&str>(row, "out_outcome")? {
            "stored" => SendOutcome::Stored(stored(new, row, beside)?),
            "duplicate" => new.under_a_used_temp_id(original(new, row, beside)?),
            "twin" => new.under_a_used_temp_id(twin(&outcomes, row)?),
            "not_found" => SendOutcome::Refused(Refusal::NotFound),
            "not_member" => SendOutcome::Refused(Refusal::NotMember),
            "banned" => SendOutcome::Refused(Refusal::Banned),
            "blocked" => SendOutcome::Refused(Refusal::Blocked),
            "muted" => SendOutcome::Refused(Refusal::Muted),
            _ => return Err(unfit("out_outcome")),
        };
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

/// A retry after an uncertain commit finds the message as it is now: it may have been edited already.
fn stored(new: &NewMessage, row: &Row, beside: &KeptBeside) -> Result<StoredMessage, StoreError> {
    let members_version = number(row, "out_members_version")?;
    if get::<Option<i64>>(row, "out_id")?.is_some() {
        return Ok(StoredMessage { message: original(new, row, beside)?, members_version });
    }
    let (seq, rev) = (number(row, "out_seq")?, number(row, "out_rev")?);
    let message = new.stored(seq, rev, time(row, "out_created_at")?);
    Ok(StoredMessage { message, members_version })
}

fn original(new: &NewMessage, row: &Row, beside: &KeptBeside) -> Result<Message, StoreError> {
    let reply_to: Option<i64> = get(row, "out_reply_to")?;
    let id: i64 = get(row, "out_id")?;
    let (reactions, data) = beside.get(&id).cloned().unwrap_or_default();
    Ok(Message {
        id: message_id(id, "out_id")?,
        conversation_id: parsed(row, "out_conversation_id", str::parse)?,
        seq: number(row, "out_seq")?,
        rev: number(row, "out_rev")?,
        sender_id: new.sender.clone(),
        kind: get(row, "out_kind")?,
        content: get(row, "out_content")?,
        temp_id: new.temp_id.clone(),
        reply_to: reply_to.map(|id| message_id(id, "out_reply_to")).transpose()?,
        data,
        created_at: time(row, "out_created_at")?,
        edited_at: time_or_null(row, "out_edited_at")?,
        deleted_at: time_or_null(row, "out_deleted_at")?,
        reactions,
    })
}

/// The earlier message of the batch with the same `temp_id`.
fn twin(earlier: &[SendOutcome], row: &Row) -> Result<Message, StoreError> {
    match earlier.get(index(row, "out_twin")?) {
        Some(SendOutcome::Stored(stored)) => Ok(stored.message.clone()),
        Some(SendOutcome::Duplicate(_) | SendOutcome::Refused(_)) | None => Err(unfit("out_twin")),
    }
}
