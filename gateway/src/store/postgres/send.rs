//! The group commit: one call of a function, one round trip. `plain` stores plain batches; `parley_send_judged` judges every
//! message of the others.

use std::collections::BTreeMap;

use deadpool_postgres::{GenericClient, Object};
use shared::command::Target;
use shared::{ConversationId, Message, MessageData, UserId};
use tokio_postgres::Row;

use super::errors::{is_lock_timeout, is_worth_a_retry};
use super::owed::SEND_JUDGED_OWING;
use super::plain::PlainBatch;
use super::rows::{bigint, get, index, message_id, number, parsed, reactions, time, time_or_null, unfit};
use crate::store::{
    Locks, NewMessage, OpenedDirect, Refusal, SendBatch, SendOutcome, SentBatch, StoreError, StoredMessage,
};
use crate::switches;

const SEND: &str = "SELECT * FROM parley_send_judged($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";

/// How often a batch is tried that other transactions aborted.
const TRIES: u32 = 2;

/// How long a batch waits for each lock, as `parley_send_plain` does, in milliseconds.
const WAIT_MS: i32 = 50;

/// How long a batch of one conversation waits for it, in milliseconds. It gives way then: another one may be free by now.
const LONG_WAIT_MS: i32 = 250;

/// Stores the batch. It tries once more, with the same ids, if locks or rows of other transactions aborted it.
pub(super) async fn send(client: &Object, batch: &SendBatch) -> Result<SentBatch, StoreError> {
    if batch.messages.is_empty() {
        return Ok(SentBatch::default());
    }
    let mut tried = 1;
    loop {
        match store(client, batch).await? {
            Ok(sent) => return Ok(sent),
            Err(error) if tried < TRIES && is_worth_a_retry(&error) => tried += 1,
            // Nothing of it is stored.
            Err(error) if is_lock_timeout(&error) => return Ok(all_busy(batch)),
            Err(error) => return Err(error.into()),
        }
    }
}

type Answer = Result<SentBatch, tokio_postgres::Error>;

async fn store(client: &Object, batch: &SendBatch) -> Result<Answer, StoreError> {
    let held = match &batch.locks {
        Locks::Leave { held } => held.as_slice(),
        Locks::Wait => return judge(client, batch, Some(LONG_WAIT_MS), &[]).await,
    };
    if !held.is_empty() {
        return leave(client, batch, held).await;
    }
    let plain = PlainBatch::of(batch)?;
    match plain.store(client).await {
        Ok(Some(row)) => return plain.sent(&row).map(Ok),
        Ok(None) => {}
        Err(error) if is_lock_timeout(&error) => return leave(client, batch, held).await,
        Err(error) => return Ok(Err(error)),
    }
    match judge(client, batch, Some(WAIT_MS), held).await? {
        Err(error) if is_lock_timeout(&error) => leave(client, batch, held).await,
        answer => Ok(answer),
    }
}

/// Stores the batch without what another transaction holds.
async fn leave(client: &Object, batch: &SendBatch, held: &[String]) -> Result<Answer, StoreError> {
    let wait = switches::off("busy-conversations").then_some(LONG_WAIT_MS * 16);
    judge(client, batch, wait, held).await
}

fn all_busy(batch: &SendBatch) -> SentBatch {
    let outcomes = batch.messages.iter().map(|_| SendOutcome::Busy(None)).collect();
    SentBatch { outcomes, opened: Vec::new() }
}

async fn judge(
    client: &Object,
    batch: &SendBatch,
    wait_ms: Option<i32>,
    held: &[String],
) -> Result<Answer, StoreError> {
    let targets = batch.messages.iter().map(JudgedTarget::of).collect::<Result<Vec<_>, StoreError>>()?;
    let rows = match call(client, batch, &targets, wait_ms, held).await {
        Ok(rows) => rows,
        Err(error) => return Ok(Err(error)),
    };
    Ok(Ok(SentBatch { outcomes: outcomes(batch, &rows)?, opened: opened(batch, &rows)? }))
}

async fn call(
    client: &Object,
    batch: &SendBatch,
    targets: &[JudgedTarget<'_>],
    wait_ms: Option<i32>,
    held: &[String],
) -> Result<Vec<Row>, tokio_postgres::Error> {
    let messages = &batch.messages;
    let ids: Vec<i64> = messages.iter().map(|message| bigint(message.id.get())).collect();
    let conversations: Vec<&str> = targets.iter().map(|target| target.id.as_str()).collect();
    let pairs: Vec<Option<&str>> =
        targets.iter().map(|target| target.pair.as_ref().map(|(key, _)| key.as_str())).collect();
    let others: Vec<Option<&str>> =
        targets.iter().map(|target| target.pair.as_ref().map(|(_, other)| other.as_str())).collect();
    let senders: Vec<&str> = messages.iter().map(|message| message.sender.as_str()).collect();
    let temp_ids: Vec<Option<&str>> = messages.iter().map(|message| message.temp_id.as_deref()).collect();
    let kinds: Vec<&str> = messages.iter().map(|message| message.kind.as_str()).collect();
    let contents: Vec<&str> = messages.iter().map(|message| message.content.as_str()).collect();
    let replies: Vec<Option<i64>> =
        messages.iter().map(|message| message.reply_to.map(|id| bigint(id.get()))).collect();
    let data: Vec<Option<&str>> =
        messages.iter().map(|message| message.data.as_ref().map(MessageData::as_str)).collect();
    let statement = client.prepare_cached(if batch.owes_events { SEND_JUDGED_OWING } else { SEND }).await?;
    client
        .query(
            &statement,
            &[
                &bigint(batch.id),
                &&*batch.owner,
                &ids,
                &conversations,
                &pairs,
                &others,
                &senders,
                &temp_ids,
                &kinds,
                &contents,
                &replies,
                &data,
                &wait_ms,
                &held,
            ],
        )
        .await
}

/// Where a message of a batch goes, as the function takes it.
struct JudgedTarget<'b> {
    /// The conversation; of a pair, the id under which its conversation may be opened.
    id: ConversationId,
    /// The key of a pair, and the user whom the message is to.
    pair: Option<(String, &'b UserId)>,
}

impl<'b> JudgedTarget<'b> {
    fn of(message: &'b NewMessage) -> Result<Self, StoreError> {
        let id = match &message.target {
            Target::Conversation(id) => id.clone(),
            Target::User(_) => message.opens_under()?,
        };
        Ok(Self { id, pair: message.pair() })
    }
}

/// The direct conversations that the batch opened, each once.
fn opened(batch: &SendBatch, rows: &[Row]) -> Result<Vec<OpenedDirect>, StoreError> {
    let mut opened: BTreeMap<ConversationId, OpenedDirect> = BTreeMap::new();
    for (new, row) in batch.messages.iter().zip(rows) {
        if let (Some((key, _)), Some(at)) = (new.pair(), time_or_null(row, "out_opened_at")?) {
            let id: ConversationId = parsed(row, "out_target", str::parse)?;
            let one = OpenedDirect::with_key(id.clone(), &key, at).ok_or_else(|| unfit("out_target"))?;
            opened.insert(id, one);
        }
    }
    Ok(opened.into_values().collect())
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
            "duplicate" => new.under_a_used_temp_id(original(new, row)?, target(row)?.as_ref()),
            "twin" => new.under_a_used_temp_id(twin(&outcomes, row)?, target(row)?.as_ref()),
            "not_found" => SendOutcome::Refused(Refusal::NotFound),
            "not_member" => SendOutcome::Refused(Refusal::NotMember),
            "banned" => SendOutcome::Refused(Refusal::Banned),
            "blocked" => SendOutcome::Refused(Refusal::Blocked),
            "muted" => SendOutcome::Refused(Refusal::Muted),
            "busy" => SendOutcome::Busy(target(row)?),
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
    let conversation = target(row)?.ok_or_else(|| unfit("out_target"))?;
    let message = new.stored(&conversation, seq, rev, time(row, "out_created_at")?);
    Ok(StoredMessage { message, members_version })
}

/// The conversation that the message's target stands for, if there is one.
fn target(row: &Row) -> Result<Option<ConversationId>, StoreError> {
    get::<Option<&str>>(row, "out_target")?.map(|id| id.parse().map_err(|_| unfit("out_target"))).transpose()
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
        data: get::<Option<&str>>(row, "out_data")?.map(MessageData::kept),
        created_at: time(row, "out_created_at")?,
        edited_at: time_or_null(row, "out_edited_at")?,
        deleted_at: time_or_null(row, "out_deleted_at")?,
        reactions: reactions(get(row, "out_reactions")?, "out_reactions")?,
    })
}

/// The earlier message of the batch with the same `temp_id`.
fn twin(earlier: &[SendOutcome], row: &Row) -> Result<Message, StoreError> {
    match earlier.get(index(row, "out_twin")?) {
        Some(SendOutcome::Stored(stored)) => Ok(stored.message.clone()),
        Some(SendOutcome::Duplicate(_) | SendOutcome::Refused(_) | SendOutcome::Busy(_)) | None => {
            Err(unfit("out_twin"))
        }
    }
}
