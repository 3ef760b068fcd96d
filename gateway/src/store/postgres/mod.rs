//! The store on PostgreSQL: a pool of pipelined connections. A file per concern holds its SQL and implements its trait.
//! It offers [`PostgresStore`]; every call ends within 4.7 seconds.
//! It caches nothing, and puts no connection back into the pool whose call was cut short.

mod activity;
mod audit;
mod backbones;
mod blocks;
mod bulk;
mod call;
mod changes;
mod conversation_changes;
mod conversations;
mod erasure;
mod errors;
mod gate;
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
mod plain;
mod pool;
mod receipts;
mod replacements;
mod revocations;
mod rows;
mod send;
mod shares;
mod start;
mod tls;
mod upkeep;
mod webhook_events;

use async_trait::async_trait;

use super::{Store, StoreError};
use call::on_connection;
pub(super) use pool::PostgresStore;

#[async_trait]
impl Store for PostgresStore {
    async fn ping(&self) -> Result<(), StoreError> {
        on_connection!(self, Control: client => async { Ok(client.simple_query("").await.map(drop)?) })
    }

    fn describe(&self) -> String {
        self.place.clone()
    }
}
