//! Rows into typed values. A value that doesn't fit its type is a fault in the data, never a panic.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use shared::{Message, MessageData, MessageId, TempId, Timestamp, UserId};
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use crate::store::StoreError;

/// The columns of a message `m`, as [`message`] reads them.
macro_rules! message_columns {
    () => {
        "m.id AS m_id, m.conversation_id AS m_conversation_id, m.seq AS m_seq, m.rev AS m_rev, \
         m.sender_id AS m_sender_id, m.temp_id AS m_temp_id, m.kind AS m_kind, m.content AS m_content, \
         m.reply_to AS m_reply_to, m.data AS m_data, m.created_at AS m_created_at, m.edited_at AS m_edited_at, \
         m.deleted_at AS m_deleted_at, m.reactions AS m_reactions"
    };
}
pub(super) use message_columns;

/// A number that stands in events for one that is known only under a lock. No content holds it, because nobody knows it.
pub(super) fn placeholder() -> u64 {
    const DIGITS_19: u64 = 1_000_000_000_000_000_000;
    DIGITS_19 + rand::random::<u64>() % DIGITS_19
}

/// A column's value.
pub(super) fn get<'r, T: FromSql<'r>>(row: &'r Row, column: &str) -> Result<T, StoreError> {
    row.try_get(column).map_err(|fault| StoreError::Failed(format!("the column {column}: {fault}")))
}

/// A number that is never negative.
pub(super) fn number(row: &Row, column: &str) -> Result<u64, StoreError> {
    unsigned(get(row, column)?, column)
}

/// An index into an array whose places PostgreSQL counts from one.
pub(super) fn index(row: &Row, column: &str) -> Result<usize, StoreError> {
    let place = usize::try_from(number(row, column)?).ok();
    place.and_then(|place| place.checked_sub(1)).ok_or_else(|| unfit(column))
}

/// A text column that `parse` takes, such as an id or a word.
pub(super) fn parsed<T, E>(row: &Row, column: &str, parse: impl Fn(&str) -> Result<T, E>) -> Result<T, StoreError> {
    parse(get(row, column)?).map_err(|_| unfit(column))
}

/// A word of a fixed list.
pub(super) fn word<T>(row: &Row, column: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, StoreError> {
    parse(get(row, column)?).ok_or_else(|| unfit(column))
}

/// A word of a fixed list, or null.
pub(super) fn word_or_null<T>(
    row: &Row,
    column: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, StoreError> {
    match get::<Option<&str>>(row, column)? {
        None => Ok(None),
        Some(text) => parse(text).map(Some).ok_or_else(|| unfit(column)),
    }
}

/// A time.
pub(super) fn time(row: &Row, column: &str) -> Result<Timestamp, StoreError> {
    get(row, column).map(timestamp)
}

/// A time, or null.
pub(super) fn time_or_null(row: &Row, column: &str) -> Result<Option<Timestamp>, StoreError> {
    Ok(get::<Option<SystemTime>>(row, column)?.map(timestamp))
}

/// The message in a row of `message_columns!()`.
pub(super) fn message(row: &Row) -> Result<Message, StoreError> {
    Ok(Message {
        id: message_id(get(row, "m_id")?, "m_id")?,
        conversation_id: parsed(row, "m_conversation_id", str::parse)?,
        seq: number(row, "m_seq")?,
        rev: number(row, "m_rev")?,
        sender_id: parsed(row, "m_sender_id", str::parse)?,
        kind: get(row, "m_kind")?,
        content: get(row, "m_content")?,
        temp_id: get::<Option<String>>(row, "m_temp_id")?.map(TempId::from),
        reply_to: get::<Option<i64>>(row, "m_reply_to")?.map(|id| message_id(id, "m_reply_to")).transpose()?,
        data: get::<Option<&str>>(row, "m_data")?.map(MessageData::kept),
        created_at: time(row, "m_created_at")?,
        edited_at: time_or_null(row, "m_edited_at")?,
        deleted_at: time_or_null(row, "m_deleted_at")?,
        reactions: reactions(get(row, "m_reactions")?, "m_reactions")?,
    })
}

/// The users who reacted, from the column of a message.
pub(super) fn reactions(json: Option<&str>, column: &str) -> Result<BTreeMap<String, Vec<UserId>>, StoreError> {
    json.map_or_else(|| Ok(BTreeMap::new()), |json| serde_json::from_str(json).map_err(|_| unfit(column)))
}

/// A message id from its column.
pub(super) fn message_id(id: i64, column: &str) -> Result<MessageId, StoreError> {
    MessageId::new(unsigned(id, column)?).ok_or_else(|| unfit(column))
}

/// A number for a bigint column; ours stay far below its limit.
pub(super) fn bigint(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A time for a timestamptz column.
pub(super) fn system_time(time: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(time.unix_ms().unsigned_abs())
}

pub(super) fn timestamp(time: SystemTime) -> Timestamp {
    let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_ms(i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX))
}

pub(super) fn unsigned(number: i64, column: &str) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| unfit(column))
}

pub(super) fn unfit(column: &str) -> StoreError {
    StoreError::Failed(format!("the column {column} holds a value that doesn't belong there"))
}
