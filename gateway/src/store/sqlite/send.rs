//! Storing a batch of messages: one after the other, in one transaction.

use rusqlite::{Connection, params};
use shared::{Message, MessageData, Timestamp};

use super::rows::{execute, get, integer, message, message_columns, now_ms, number, row, word_or_null};
use crate::store::membership::{self, State};
use crate::store::{NewMessage, Refusal, SendBatch, SendOutcome, StoreError, StoredMessage};

const BY_ID: &str = concat!("SELECT ", message_columns!(), " FROM messages m WHERE m.id = ?1");
const BY_TEMP_ID: &str =
    concat!("SELECT ", message_columns!(), " FROM messages m WHERE m.sender_id = ?1 AND m.temp_id = ?2");

pub(super) fn send(change: &Connection, batch: &SendBatch) -> Result<Vec<SendOutcome>, StoreError> {
    if let Some(refusals) = earlier_refusals(change, batch.id)? {
        return repeated(change, batch, &refusals);
    }
    let now = Timestamp::from_unix_ms(now_ms());
    let outcomes =
        batch.messages.iter().map(|new| send_one(change, new, now)).collect::<Result<Vec<_>, StoreError>>()?;
    let mut stored: Vec<u64> = Vec::new();
    let mut refusals: Vec<Option<&str>> = Vec::new();
    for outcome in &outcomes {
        match outcome {
            SendOutcome::Stored(done) => stored.push(done.message.id.get()),
            SendOutcome::Duplicate(_) | SendOutcome::Refused(_) => {}
        }
        refusals.push(match outcome {
            SendOutcome::Refused(refusal) => Some(refusal_word(*refusal)),
            SendOutcome::Stored(_) | SendOutcome::Duplicate(_) => None,
        });
    }
    if !stored.is_empty() {
        let refusals = refusals.iter().any(Option::is_some).then(|| to_json(&refusals)).transpose()?;
        let sql = "INSERT INTO outbox (id, owner, committed_at, message_ids, refusals) VALUES (?1, ?2, ?3, ?4, ?5)";
        execute(change, sql, params![integer(batch.id), &*batch.owner, now.unix_ms(), to_json(&stored)?, refusals])?;
    }
    Ok(outcomes)
}

fn to_json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|fault| StoreError::Failed(fault.to_string()))
}

fn send_one(change: &Connection, new: &NewMessage, now: Timestamp) -> Result<SendOutcome, StoreError> {
    if let Some(original) = by_temp_id(change, new)? {
        return Ok(new.under_a_used_temp_id(original));
    }
    let sql = "SELECT c.blocked, c.last_seq, c.rev, c.members_version, m.state, \
            m.muted_until > ?3 AS is_muted \
        FROM conversations c LEFT JOIN members m ON m.conversation_id = c.id AND m.user_id = ?2 WHERE c.id = ?1";
    let head = row(change, sql, params![new.conversation.as_str(), new.sender.as_str(), now.unix_ms()], |row| {
        let refusal = membership::refusal(word_or_null(row, "state", State::parse)?);
        let is_muted = get::<Option<bool>>(row, "is_muted")?.unwrap_or_default();
        let refusal = refusal.or(is_muted.then_some(Refusal::Muted));
        let refusal = refusal.or(get::<bool>(row, "blocked")?.then_some(Refusal::Blocked));
        Ok((refusal, number(row, "last_seq")? + 1, number(row, "rev")? + 1, number(row, "members_version")?))
    })?;
    let Some((refusal, seq, rev, members_version)) = head else {
        return Ok(SendOutcome::Refused(Refusal::NotFound));
    };
    if let Some(refusal) = refusal {
        return Ok(SendOutcome::Refused(refusal));
    }
    if let Some(answered) = new.reply_to {
        let sql = "SELECT 1 FROM messages WHERE id = ?1 AND conversation_id = ?2";
        if row(change, sql, params![integer(answered.get()), new.conversation.as_str()], |_| Ok(()))?.is_none() {
            return Ok(SendOutcome::Refused(Refusal::NotFound));
        }
    }
    let message = insert(change, new, (seq, rev), now)?;
    Ok(SendOutcome::Stored(StoredMessage { message, members_version }))
}

fn by_temp_id(change: &Connection, new: &NewMessage) -> Result<Option<Message>, StoreError> {
    match &new.temp_id {
        Some(temp_id) => row(change, BY_TEMP_ID, [new.sender.as_str(), temp_id.as_str()], message),
        None => Ok(None),
    }
}

/// Inserts, and moves the conversation and the sender's positions. The sender has seen all earlier messages, and has
/// read them only if no message of another user lies between.
fn insert(
    change: &Connection,
    new: &NewMessage,
    (seq, rev): (u64, u64),
    now: Timestamp,
) -> Result<Message, StoreError> {
    let message = new.stored(seq, rev, now);
    let sql = "INSERT INTO messages (id, conversation_id, seq, rev, sender_id, temp_id, kind, content, reply_to, \
        created_at, data) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    execute(
        change,
        sql,
        params![
            integer(message.id.get()),
            message.conversation_id.as_str(),
            integer(seq),
            integer(rev),
            message.sender_id.as_str(),
            message.temp_id.as_deref(),
            message.kind,
            message.content,
            message.reply_to.map(|id| integer(id.get())),
            now.unix_ms(),
            message.data.as_ref().map(MessageData::as_str)
        ],
    )?;
    let sql = "UPDATE conversations SET last_seq = ?2, rev = ?3, last_activity = ?4 WHERE id = ?1";
    execute(change, sql, params![new.conversation.as_str(), integer(seq), integer(rev), now.unix_ms()])?;
    let sql = "UPDATE members SET seen_seq = max(seen_seq, ?3), \
        read_seq = CASE WHEN read_seq = ?3 - 1 THEN ?3 ELSE read_seq END, \
        delivered_seq = CASE WHEN delivered_seq = ?3 - 1 THEN ?3 ELSE delivered_seq END \
        WHERE conversation_id = ?1 AND user_id = ?2";
    execute(change, sql, params![new.conversation.as_str(), new.sender.as_str(), integer(seq)])?;
    Ok(message)
}

/// The refusals of a batch that was committed before, by place; `None` for a new batch.
fn earlier_refusals(change: &Connection, id: u64) -> Result<Option<Vec<Option<String>>>, StoreError> {
    row(change, "SELECT refusals FROM outbox WHERE id = ?1", [integer(id)], |row| {
        get::<Option<String>>(row, "refusals")?.map_or_else(
            || Ok(Vec::new()),
            |json| serde_json::from_str(&json).map_err(|fault| StoreError::Failed(fault.to_string())),
        )
    })
}

/// The outcomes of a batch that was committed before.
fn repeated(
    change: &Connection,
    batch: &SendBatch,
    refusals: &[Option<String>],
) -> Result<Vec<SendOutcome>, StoreError> {
    let outcome = |(place, new): (usize, &NewMessage)| {
        if let Some(word) = refusals.get(place).and_then(Option::as_deref) {
            let refusal = refusal_of(word).ok_or_else(|| super::rows::unfit("refusals"))?;
            return Ok(SendOutcome::Refused(refusal));
        }
        if let Some(message) = row(change, BY_ID, [integer(new.id.get())], message)? {
            let sql = "SELECT members_version FROM conversations WHERE id = ?1";
            let version = row(change, sql, [new.conversation.as_str()], |row| number(row, "members_version"))?;
            let members_version = version.unwrap_or_default();
            return Ok(SendOutcome::Stored(StoredMessage { message, members_version }));
        }
        let original = by_temp_id(change, new)?;
        Ok(original.map_or(SendOutcome::Refused(Refusal::NotFound), |original| new.under_a_used_temp_id(original)))
    };
    batch.messages.iter().enumerate().map(outcome).collect()
}

fn refusal_word(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::NotFound => "not_found",
        Refusal::NotMember => "not_member",
        Refusal::Banned => "banned",
        Refusal::Blocked => "blocked",
        Refusal::Forbidden => "forbidden",
        Refusal::Muted => "muted",
        Refusal::Full => "full",
        Refusal::Conflict => "conflict",
        Refusal::UsedTempId => "used_temp_id",
        Refusal::LastOwner => "last_owner",
        Refusal::Limit => "limit",
    }
}

fn refusal_of(word: &str) -> Option<Refusal> {
    let all = [
        Refusal::NotFound,
        Refusal::NotMember,
        Refusal::Banned,
        Refusal::Blocked,
        Refusal::Forbidden,
        Refusal::Muted,
        Refusal::Full,
        Refusal::Conflict,
        Refusal::UsedTempId,
        Refusal::LastOwner,
        Refusal::Limit,
    ];
    all.into_iter().find(|refusal| refusal_word(*refusal) == word)
}
