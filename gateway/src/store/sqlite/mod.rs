//! The store in an embedded SQLite file. A file per concern holds its SQL and implements its trait.
//! It offers [`SqliteStore`]; one thread owns the connection, and each call is one transaction on it.
//! It follows the rules of the PostgreSQL store in simple loops, and makes no batches of its own.

mod activity;
mod audit;
mod backbones;
mod blocks;
mod bulk;
mod changes;
mod conversation_changes;
mod conversations;
mod erasure;
mod ids;
mod large;
mod leases;
mod listings;
mod lookups;
mod membership;
mod messages;
mod migrate;
mod moderation;
mod notifications;
mod outbox;
mod owed;
mod people;
mod receipts;
mod replacements;
mod revocations;
mod rows;
mod send;
mod thread;
mod upkeep;
mod webhook_events;

use async_trait::async_trait;

use super::{Store, StoreError};
pub(super) use thread::SqliteStore;

#[async_trait]
impl Store for SqliteStore {
    async fn ping(&self) -> Result<(), StoreError> {
        self.read(|read| rows::row(read, "SELECT 1", [], |_| Ok(())).map(drop)).await
    }

    fn describe(&self) -> String {
        self.place.clone()
    }
}
