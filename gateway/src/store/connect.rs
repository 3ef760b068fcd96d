//! From a URL to a store that is ready: connected, with its tables up to date.

use std::sync::Arc;

use super::postgres::PostgresStore;
use super::sqlite::SqliteStore;
use super::{Store, StoreError};

/// Opens the store that `url` names: `postgres://user:password@host:5432/database`, `sqlite:<file>` or
/// `sqlite::memory:`. The error says what is wrong and what would be right, and never holds the password.
pub async fn connect(url: &str) -> Result<Arc<dyn Store>, StoreError> {
    match url.split_once(':') {
        Some(("postgres" | "postgresql", _)) => PostgresStore::connect(url).await,
        Some(("sqlite", "")) => {
            Err(StoreError::Failed("DATABASE_URL names no file; it looks like sqlite:parley.db".into()))
        }
        Some(("sqlite", file)) => SqliteStore::open(file).await,
        Some(_) | None => Err(StoreError::Failed(
            "DATABASE_URL must begin with postgres:// or sqlite: (postgres://user:password@host:5432/database, or \
             sqlite:parley.db)"
                .into(),
        )),
    }
}
