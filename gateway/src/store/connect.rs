//! From a URL to a store that is ready: connected, with its tables up to date.

use std::sync::Arc;

use super::postgres::PostgresStore;
use super::sqlite::SqliteStore;
use super::{Store, StoreError};

/// Opens the store that `url` names: `postgres://user:password@host:5432/database`, `sqlite:<file>` or
/// `sqlite::memory:`. The error says what is wrong and what would be right, and never holds the password.
pub async fn connect(url: &str) -> Result<Arc<dyn Store>, StoreError> {
    match kind(url)? {
        Kind::Postgres => PostgresStore::connect(url).await,
        Kind::Sqlite(file) => SqliteStore::open(file).await,
    }
}

/// Reads the URL, and the file of certificates that it may name. Connects to nothing and opens no database.
///
/// # Errors
/// The same as those of [`connect`], as far as the URL alone shows them.
pub fn check(url: &str) -> Result<(), StoreError> {
    match kind(url)? {
        Kind::Postgres => PostgresStore::check(url),
        Kind::Sqlite(_) => Ok(()),
    }
}

enum Kind<'a> {
    Postgres,
    /// In this file.
    Sqlite(&'a str),
}

fn kind(url: &str) -> Result<Kind<'_>, StoreError> {
    match url.split_once(':') {
        Some(("postgres" | "postgresql", _)) => Ok(Kind::Postgres),
        Some(("sqlite", "")) => {
            Err(StoreError::Failed("DATABASE_URL names no file; it looks like sqlite:parley.db".into()))
        }
        Some(("sqlite", file)) => Ok(Kind::Sqlite(file)),
        Some(_) | None => Err(StoreError::Failed(
            "DATABASE_URL must begin with postgres:// or sqlite: (postgres://user:password@host:5432/database, or \
             sqlite:parley.db)"
                .into(),
        )),
    }
}
