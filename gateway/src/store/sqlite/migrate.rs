//! Brings the file's tables up to date, one numbered file after the other. Forward only.

use rusqlite::{Connection, TransactionBehavior};

use crate::store::StoreError;

/// The versions, in order; version 1 is the first. `user_version` of the file counts those that it has.
const VERSIONS: [&str; 1] = [include_str!("migrations/0001_tables.sql")];

/// Applies what the file lacks, in one transaction that keeps other processes out.
pub(super) fn run(connection: &mut Connection) -> Result<(), StoreError> {
    let change = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    let done: usize = change.query_row("PRAGMA user_version", [], |row| row.get::<_, u32>(0))?.try_into().unwrap_or(0);
    if done > VERSIONS.len() {
        return Err(StoreError::Failed(format!(
            "its tables have version {done}, this gateway knows only {}: run a newer gateway, or another file",
            VERSIONS.len()
        )));
    }
    for sql in VERSIONS.iter().skip(done) {
        change.execute_batch(sql)?;
    }
    change.pragma_update(None, "user_version", u32::try_from(VERSIONS.len()).unwrap_or(u32::MAX))?;
    Ok(change.commit()?)
}
