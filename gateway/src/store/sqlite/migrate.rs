//! Brings the file's tables up to date, one numbered file after the other. Forward only.

use rusqlite::{Connection, TransactionBehavior};

use super::rows::{execute, get, row, rows};
use crate::store::StoreError;
use crate::store::migrations::{Migration, missing};

/// All migrations, in order. One with a number between others may be added later.
const MIGRATIONS: &[Migration] = &[
    Migration { version: 100, sql: include_str!("migrations/0100_schema.sql") },
    Migration { version: 120, sql: include_str!("migrations/0120_lacking.sql") },
    Migration { version: 130, sql: include_str!("migrations/0130_rest.sql") },
    Migration { version: 140, sql: include_str!("migrations/0140_names.sql") },
    Migration { version: 150, sql: include_str!("migrations/0150_first_messages.sql") },
    Migration { version: 170, sql: include_str!("migrations/0170_erasures.sql") },
    Migration { version: 190, sql: include_str!("migrations/0190_replaced.sql") },
    Migration { version: 200, sql: include_str!("migrations/0200_webhook_events.sql") },
    Migration { version: 210, sql: include_str!("migrations/0210_large.sql") },
];

/// Applies what the file lacks, in one transaction that keeps other processes out.
pub(super) fn run(connection: &mut Connection) -> Result<(), StoreError> {
    apply(connection, MIGRATIONS)
}

fn apply(connection: &mut Connection, migrations: &[Migration]) -> Result<(), StoreError> {
    let change = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    let applied = applied(&change)?;
    for Migration { version, sql } in missing(migrations, &applied).map_err(StoreError::Failed)? {
        change.execute_batch(sql)?;
        execute(&change, "INSERT INTO schema_migrations (version) VALUES (?1)", [version])?;
    }
    Ok(change.commit()?)
}

/// The versions that the file has. The oldest files list none, and have theirs in `user_version`.
fn applied(change: &Connection) -> Result<Vec<i32>, StoreError> {
    change
        .execute_batch("CREATE TABLE IF NOT EXISTS schema_migrations (version INTEGER PRIMARY KEY NOT NULL) STRICT")?;
    let counted = row(change, "PRAGMA user_version", [], |row| get::<i32>(row, "user_version"))?.unwrap_or_default();
    let mut applied =
        rows(change, "SELECT version FROM schema_migrations ORDER BY version", [], |row| get(row, "version"))?;
    if counted > 0 {
        applied.insert(0, counted);
    }
    Ok(applied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_migration_comes_on_top_of_a_database_in_use() -> Result<(), StoreError> {
        let mut connection = Connection::open_in_memory()?;
        let first = Migration { version: 100, sql: "CREATE TABLE one (id INTEGER) STRICT" };
        let later = Migration {
            version: 110,
            sql: "CREATE TABLE other (id INTEGER) STRICT; INSERT INTO other SELECT id FROM one",
        };
        let between = Migration { version: 105, sql: "INSERT INTO one VALUES (2)" };
        apply(&mut connection, std::slice::from_ref(&first))?;
        execute(&connection, "INSERT INTO one VALUES (1)", [])?;
        let ids = |connection: &Connection, table: &str| -> Result<Vec<i64>, StoreError> {
            rows(connection, &format!("SELECT id FROM {table} ORDER BY id"), [], |row| get(row, "id"))
        };
        let mut all = vec![first, later];
        apply(&mut connection, &all)?;
        all.insert(1, between);
        for _ in 0..2 {
            apply(&mut connection, &all)?;
        }
        assert_eq!((ids(&connection, "one")?, ids(&connection, "other")?), (vec![1, 2], vec![1]));
        Ok(())
    }
}
