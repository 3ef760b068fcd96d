//! Storing a batch of messages: one after the other, in one transaction.

use rusqlite::{Connection, Row, params};
use shared::command::Target;
use shared::{ConversationId, Message, MessageData, Timestamp};

use super::blocks::is_blocked;
use super::conversations::{self, direct};
use super::outbox::opened_direct;
use super::owed;
use super::rows::{execute, get, integer, message, message_columns, now_ms, number, row, unfit, word_or_null};
use crate::store::conversations::new_direct;
use crate::store::membership::{self, State};
use crate::store::{NewMessage, OpenedDirect, Refusal, SendBatch, SendOutcome, SentBatch, StoreError, StoredMessage};

const BY_ID: &str = concat!("SELECT ", message_columns!(), " FROM messages m WHERE m.id = ?1");
const BY_TEMP_ID: &str =
    concat!("SELECT ", message_columns!(), " FROM messages m WHERE m.sender_id = ?1 AND m.temp_id = ?2");

pub(super) fn send(change: &Connection, batch: &SendBatch) -> Result<SentBatch, StoreError> {
    if let Some(earlier) = earlier(change, batch.id)? {
        return repeated(change, batch, &earlier);
    }
    let now = Timestamp::from_unix_ms(now_ms());
    let mut sent = SentBatch::default();
    for new in &batch.messages {
        let outcome = send_one(change, new, now, &mut sent.opened)?;
        sent.outcomes.push(outcome);
    }
    let mut stored: Vec<u64> = Vec::new();
    let mut refusals: Vec<Option<&str>> = Vec::new();
    for outcome in &sent.outcomes {
        match outcome {
            SendOutcome::Stored(done) => stored.push(done.message.id.get()),
            SendOutcome::Duplicate(_) | SendOutcome::Refused(_) | SendOutcome::Busy(_) => {}
        }
        refusals.push(match outcome {
            SendOutcome::Refused(refusal) => Some(refusal_word(*refusal)),
            SendOutcome::Stored(_) | SendOutcome::Duplicate(_) | SendOutcome::Busy(_) => None,
        });
    }
    if !stored.is_empty() {
        let refusals = refusals.iter().any(Option::is_some).then(|| to_json(&refusals)).transpose()?;
        let opened: Vec<&str> = sent.opened.iter().map(|direct| direct.id.as_str()).collect();
        let opened = (!opened.is_empty()).then(|| to_json(&opened)).transpose()?;
        let sql = "INSERT INTO outbox (id, owner, committed_at, message_ids, refusals, opened) \
            VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let (id, owner) = (integer(batch.id), &*batch.owner);
        execute(change, sql, params![id, owner, now.unix_ms(), to_json(&stored)?, refusals, opened])?;
        if batch.owes_events {
            owed::write_sent(change, &sent, now)?;
        }
    }
    Ok(sent)
}

fn to_json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|fault| StoreError::Failed(fault.to_string()))
}

fn send_one(
    change: &Connection,
    new: &NewMessage,
    now: Timestamp,
    opened: &mut Vec<OpenedDirect>,
) -> Result<SendOutcome, StoreError> {
    let target = target(change, new)?;
    if let Some(original) = by_temp_id(change, new)? {
        return Ok(new.under_a_used_temp_id(original, target.as_ref()));
    }
    let conversation = match target {
        Some(conversation) => conversation,
        None => match open(change, new, now)? {
            Ok(direct) => {
                opened.push(direct.clone());
                direct.id
            }
            Err(refusal) => return Ok(SendOutcome::Refused(refusal)),
        },
    };
    let sql = "SELECT c.blocked, c.last_seq, c.rev, c.members_version, m.state, \
            m.muted_until > ?3 AS is_muted \
        FROM conversations c LEFT JOIN members m ON m.conversation_id = c.id AND m.user_id = ?2 WHERE c.id = ?1";
    let head = row(change, sql, params![conversation.as_str(), new.sender.as_str(), now.unix_ms()], |row| {
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
        if row(change, sql, params![integer(answered.get()), conversation.as_str()], |_| Ok(()))?.is_none() {
            return Ok(SendOutcome::Refused(Refusal::NotFound));
        }
    }
    let message = insert(change, new.stored(&conversation, seq, rev, now))?;
    Ok(SendOutcome::Stored(StoredMessage { message, members_version }))
}

/// The conversation that the message's target stands for; `None` if it has to be opened.
fn target(change: &Connection, new: &NewMessage) -> Result<Option<ConversationId>, StoreError> {
    match (&new.target, new.pair()) {
        (Target::Conversation(id), _) => Ok(Some(id.clone())),
        (Target::User(_), pair) => pair.map_or(Ok(None), |(key, _)| direct(change, &key)),
    }
}

/// Opens the direct conversation of a message to a user.
fn open(change: &Connection, new: &NewMessage, now: Timestamp) -> Result<Result<OpenedDirect, Refusal>, StoreError> {
    let Some((key, other)) = new.pair() else { return Ok(Err(Refusal::NotFound)) };
    if is_blocked(change, &new.sender, other)? {
        return Ok(Err(Refusal::Blocked));
    }
    if new.reply_to.is_some() {
        return Ok(Err(Refusal::NotFound));
    }
    let id = new.opens_under()?;
    conversations::insert(change, &new_direct(&id, (&new.sender, other)), Some(&key), now)?;
    OpenedDirect::with_key(id, &key, now).map(Ok).ok_or_else(|| unfit("pair_key"))
}

fn by_temp_id(change: &Connection, new: &NewMessage) -> Result<Option<Message>, StoreError> {
    match &new.temp_id {
        Some(temp_id) => row(change, BY_TEMP_ID, [new.sender.as_str(), temp_id.as_str()], message),
        None => Ok(None),
    }
}

/// Inserts, and moves the conversation and the sender's positions. The sender has seen all earlier messages, and has
/// read them only if no message of another user lies between.
fn insert(change: &Connection, message: Message) -> Result<Message, StoreError> {
    let (conversation, seq, now) =
        (message.conversation_id.as_str(), integer(message.seq), message.created_at.unix_ms());
    let sql = "INSERT INTO messages (id, conversation_id, seq, rev, sender_id, temp_id, kind, content, reply_to, \
        created_at, data) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    execute(
        change,
        sql,
        params![
            integer(message.id.get()),
            conversation,
            seq,
            integer(message.rev),
            message.sender_id.as_str(),
            message.temp_id.as_deref(),
            message.kind,
            message.content,
            message.reply_to.map(|id| integer(id.get())),
            now,
            message.data.as_ref().map(MessageData::as_str)
        ],
    )?;
    let sql = "UPDATE conversations SET last_seq = ?2, rev = ?3, last_activity = ?4 WHERE id = ?1";
    execute(change, sql, params![conversation, seq, integer(message.rev), now])?;
    let sql = "UPDATE members SET seen_seq = max(seen_seq, ?3), \
        read_seq = CASE WHEN read_seq = ?3 - 1 THEN ?3 ELSE read_seq END, \
        delivered_seq = CASE WHEN delivered_seq = ?3 - 1 THEN ?3 ELSE delivered_seq END \
        WHERE conversation_id = ?1 AND user_id = ?2";
    execute(change, sql, params![conversation, message.sender_id.as_str(), seq])?;
    Ok(message)
}

/// What the outbox row of a batch says that was committed before.
struct Earlier {
    /// Why messages were refused, by place; empty if none was.
    refusals: Vec<Option<String>>,
    /// The conversations that were opened.
    opened: Vec<String>,
}

/// The row of a batch that was committed before; `None` for a new batch.
fn earlier(change: &Connection, id: u64) -> Result<Option<Earlier>, StoreError> {
    row(change, "SELECT refusals, opened FROM outbox WHERE id = ?1", [integer(id)], |row| {
        Ok(Earlier { refusals: from_json(row, "refusals")?, opened: from_json(row, "opened")? })
    })
}

/// An array in JSON; null is an empty one.
fn from_json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: &str) -> Result<Vec<T>, StoreError> {
    get::<Option<String>>(row, column)?.map_or_else(
        || Ok(Vec::new()),
        |json| serde_json::from_str(&json).map_err(|fault| StoreError::Failed(fault.to_string())),
    )
}

/// The outcomes of a batch that was committed before.
fn repeated(change: &Connection, batch: &SendBatch, earlier: &Earlier) -> Result<SentBatch, StoreError> {
    let outcome = |(place, new): (usize, &NewMessage)| {
        if let Some(word) = earlier.refusals.get(place).and_then(Option::as_deref) {
            let refusal = refusal_of(word).ok_or_else(|| unfit("refusals"))?;
            return Ok(SendOutcome::Refused(refusal));
        }
        if let Some(message) = row(change, BY_ID, [integer(new.id.get())], message)? {
            let sql = "SELECT members_version FROM conversations WHERE id = ?1";
            let version = row(change, sql, [message.conversation_id.as_str()], |row| number(row, "members_version"))?;
            let members_version = version.unwrap_or_default();
            return Ok(SendOutcome::Stored(StoredMessage { message, members_version }));
        }
        let target = target(change, new)?;
        let original = by_temp_id(change, new)?;
        Ok(original.map_or(SendOutcome::Refused(Refusal::NotFound), |original| {
            new.under_a_used_temp_id(original, target.as_ref())
        }))
    };
    let outcomes = batch.messages.iter().enumerate().map(outcome).collect::<Result<_, StoreError>>()?;
    let opened = earlier.opened.iter().map(|id| opened_direct(change, id)).collect::<Result<Vec<_>, StoreError>>()?;
    Ok(SentBatch { outcomes, opened: opened.into_iter().flatten().collect() })
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
