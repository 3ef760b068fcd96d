//! Brings the file's tables up to date, one numbered file after the other. Forward only.

use rusqlite::{Connection, TransactionBehavior};

use super::rows::{execute, get, row, rows};
use crate::store::StoreError;

/// The versions, in order. Numbers may be left out, and one that comes late between others is applied all the same.
const VERSIONS: &[(u32, &str)] = &[
    (1, include_str!("migrations/0001_tables.sql")),
    (10, include_str!("migrations/0010_past_members.sql")),
    (11, include_str!("migrations/0011_notifications.sql")),
    (13, include_str!("migrations/0013_changes.sql")),
    (14, include_str!("migrations/0014_revocations.sql")),
    (20, include_str!("migrations/0020_usernames_by_user.sql")),
    (22, include_str!("migrations/0022_retired_backbones.sql")),
];

/// Applies what the file lacks, in one transaction that keeps other processes out.
pub(super) fn run(connection: &mut Connection) -> Result<(), StoreError> {
    let change = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    let applied = applied(&change)?;
    if let Some(unknown) = applied.iter().rfind(|version| VERSIONS.iter().all(|(known, _)| known != *version)) {
        return Err(StoreError::Failed(format!(
            "its tables have version {unknown}, which this gateway doesn't know: run a newer gateway, or another file"
        )));
    }
    for (version, sql) in VERSIONS.iter().filter(|(version, _)| !applied.contains(version)) {
        change.execute_batch(sql)?;
        execute(&change, "INSERT INTO schema_migrations (version) VALUES (?1)", [version])?;
    }
    Ok(change.commit()?)
}

/// The versions that the file has. A file of the first days has none listed, but counts its one in `user_version`.
fn applied(change: &Connection) -> Result<Vec<u32>, StoreError> {
    change
        .execute_batch("CREATE TABLE IF NOT EXISTS schema_migrations (version INTEGER PRIMARY KEY NOT NULL) STRICT")?;
    let counted = row(change, "PRAGMA user_version", [], |row| get::<u32>(row, "user_version"))?.unwrap_or_default();
    if counted > 0 {
        execute(change, "INSERT OR IGNORE INTO schema_migrations (version) VALUES (?1)", [counted])?;
    }
    rows(change, "SELECT version FROM schema_migrations ORDER BY version", [], |row| get(row, "version"))
}
