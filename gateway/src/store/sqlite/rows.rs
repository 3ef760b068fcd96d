//! Statements and rows of SQLite into typed values. A value that doesn't fit its type is a fault, never a panic.

use rusqlite::types::FromSql;
use rusqlite::{Connection, ErrorCode, Params, Row};
use shared::{Message, MessageData, MessageId, TempId, Timestamp};

use crate::store::StoreError;

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
                | ErrorCode::OutOfMemory,
            ) => Self::Unavailable(error.to_string()),
            Some(_) | None => Self::Failed(error.to_string()),
        }
    }
}

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

/// All rows of a statement.
pub(super) fn rows<T>(
    connection: &Connection,
    sql: &str,
    parameters: impl Params,
    read: impl Fn(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(parameters)?;
    let mut values = Vec::new();
    while let Some(row) = rows.next()? {
        values.push(read(row)?);
    }
    Ok(values)
}

/// The first row of a statement, if there is one.
pub(super) fn row<T>(
    connection: &Connection,
    sql: &str,
    parameters: impl Params,
    read: impl Fn(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(parameters)?;
    rows.next()?.map(read).transpose()
}

/// The number of rows that a statement changed.
pub(super) fn execute(connection: &Connection, sql: &str, parameters: impl Params) -> Result<usize, StoreError> {
    Ok(connection.prepare_cached(sql)?.execute(parameters)?)
}

/// A column's value.
pub(super) fn get<T: FromSql>(row: &Row<'_>, column: &str) -> Result<T, StoreError> {
    row.get(column).map_err(|fault| StoreError::Failed(format!("the column {column}: {fault}")))
}

/// A number that is never negative.
pub(super) fn number(row: &Row<'_>, column: &str) -> Result<u64, StoreError> {
    u64::try_from(get::<i64>(row, column)?).map_err(|_| unfit(column))
}

/// A text column that `parse` takes, such as an id.
pub(super) fn parsed<T, E>(row: &Row<'_>, column: &str, parse: impl Fn(&str) -> Result<T, E>) -> Result<T, StoreError> {
    parse(&get::<String>(row, column)?).map_err(|_| unfit(column))
}

/// A word of a fixed list.
pub(super) fn word<T>(row: &Row<'_>, column: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, StoreError> {
    parse(&get::<String>(row, column)?).ok_or_else(|| unfit(column))
}

/// A word of a fixed list, or null.
pub(super) fn word_or_null<T>(
    row: &Row<'_>,
    column: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, StoreError> {
    match get::<Option<String>>(row, column)? {
        None => Ok(None),
        Some(text) => parse(&text).map(Some).ok_or_else(|| unfit(column)),
    }
}

/// A time.
pub(super) fn time(row: &Row<'_>, column: &str) -> Result<Timestamp, StoreError> {
    get(row, column).map(Timestamp::from_unix_ms)
}

/// The message in a row of `message_columns!()`.
pub(super) fn message(row: &Row<'_>) -> Result<Message, StoreError> {
    Ok(Message {
        id: message_id(row, "m_id")?,
        conversation_id: parsed(row, "m_conversation_id", str::parse)?,
        seq: number(row, "m_seq")?,
        rev: number(row, "m_rev")?,
        sender_id: parsed(row, "m_sender_id", str::parse)?,
        kind: get(row, "m_kind")?,
        content: get(row, "m_content")?,
        temp_id: get::<Option<String>>(row, "m_temp_id")?.map(TempId::from),
        reply_to: match get::<Option<i64>>(row, "m_reply_to")? {
            Some(_) => Some(message_id(row, "m_reply_to")?),
            None => None,
        },
        data: get::<Option<String>>(row, "m_data")?.as_deref().map(MessageData::kept),
        created_at: time(row, "m_created_at")?,
        edited_at: get::<Option<i64>>(row, "m_edited_at")?.map(Timestamp::from_unix_ms),
        deleted_at: get::<Option<i64>>(row, "m_deleted_at")?.map(Timestamp::from_unix_ms),
        reactions: match get::<Option<String>>(row, "m_reactions")? {
            Some(json) => serde_json::from_str(&json).map_err(|_| unfit("m_reactions"))?,
            None => std::collections::BTreeMap::new(),
        },
    })
}

/// A message id.
pub(super) fn message_id(row: &Row<'_>, column: &str) -> Result<MessageId, StoreError> {
    MessageId::new(number(row, column)?).ok_or_else(|| unfit(column))
}

/// A number for an INTEGER column; ours stay far below its limit.
pub(super) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The store's clock, in milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    Timestamp::now().unix_ms()
}

/// The moment `age_ms` ago by the store's clock.
pub(super) fn before_ms(age_ms: u64) -> i64 {
    now_ms().saturating_sub(integer(age_ms))
}

/// The moment in `ms` by the store's clock.
pub(super) fn after_ms(ms: u64) -> i64 {
    now_ms().saturating_add(integer(ms))
}

pub(super) fn unfit(column: &str) -> StoreError {
    StoreError::Failed(format!("the column {column} holds a value that doesn't belong there"))
}
