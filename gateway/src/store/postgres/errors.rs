//! PostgreSQL's errors as errors of the store.

use tokio_postgres::error::SqlState;

use crate::store::StoreError;

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.code() {
            // No answer of the server: the connection broke.
            None if error.is_closed()
                || std::error::Error::source(&error).is_some_and(|source| source.is::<std::io::Error>()) =>
            {
                Self::Unavailable(describe(&error))
            }
            None => Self::Failed(describe(&error)),
            Some(code) if is_temporary(code) => Self::Unavailable(describe(&error)),
            Some(_) => Self::Failed(describe(&error)),
        }
    }
}

/// Whether the same transaction may succeed if it is run again at once: it was aborted, and all of it was rolled back.
pub(super) fn is_worth_a_retry(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| {
        *code == SqlState::T_R_DEADLOCK_DETECTED
            || *code == SqlState::T_R_SERIALIZATION_FAILURE
            // Another batch stored the same temp_id or batch id meanwhile: the next look finds it.
            || *code == SqlState::UNIQUE_VIOLATION
    })
}

/// Whether a lock was not got in time: all of the transaction was rolled back, and the connection is as it was.
pub(super) fn is_lock_timeout(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
}

/// Whether PostgreSQL has no room for a further connection: of its own, of the role's, or of the database's.
pub(super) fn is_full(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::TOO_MANY_CONNECTIONS)
}

/// The server's sentence with its code; never a value from a statement (those stand in DETAIL).
pub(super) fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(answer) => format!("{} (SQLSTATE {})", answer.message(), answer.code().code()),
        None => match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}

/// Time-outs, lost connections, a server that stops, starts, is full, read-only or out of connections.
fn is_temporary(code: &SqlState) -> bool {
    let class = code.code().get(..2).unwrap_or_default();
    matches!(class, "08" | "53" | "57" | "58" | "40" | "55") || *code == SqlState::READ_ONLY_SQL_TRANSACTION
}
