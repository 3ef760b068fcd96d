//! The store on PostgreSQL: a pool of pipelined connections. Holds nothing that the server doesn't hold.
//!
//! Every call ends within [`CALL_MS_MAX`]. A connection whose call was cut short goes, never back into the pool.

mod activity;
mod audit;
mod bulk;
mod changes;
mod conversations;
mod errors;
mod history;
mod lookups;
mod membership;
mod migrate;
mod notifications;
mod outbox;
mod people;
mod plain;
mod pool;
mod receipts;
mod revocations;
mod roster;
mod rows;
mod send;
mod tls;

use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use shared::{Conversation, ConversationId, Message, Timestamp, UserId};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::{
    Members, MembershipChange, MembershipOutcome, NewConversation, OutboxEvent, OutboxRow, Owner, Page, PendingRow,
    Receipt, ReceiptChange, Refusal, SendBatch, SendOutcome, Store, StoreError, UnreadCount,
};
use pool::PooledConnection;
pub(super) use pool::PostgresStore;

/// The longest that a call may take, in milliseconds; the trait promises five seconds.
const CALL_MS_MAX: u64 = 4_700;

/// Lends a connection to one call, with its deadline.
macro_rules! on_connection {
    ($store:expr, $client:ident => $call:expr) => {
        within(async {
            let mut lent: PooledConnection = $store.lend().await?;
            let $client = lent.client()?;
            let result = $call.await;
            lent.finish(result)
        })
        .await
    };
}
use on_connection;

async fn within<T>(call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    tokio::time::timeout(Duration::from_millis(CALL_MS_MAX), call)
        .await
        .unwrap_or_else(|_| Err(StoreError::Unavailable("PostgreSQL did not answer in time".into())))
}

/// Runs a statement that is prepared once per connection.
async fn query(
    client: &impl GenericClient,
    sql: &'static str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, StoreError> {
    let statement = client.prepare_cached(sql).await?;
    Ok(client.query(&statement, parameters).await?)
}

/// Like [`query`], for at most one row.
async fn query_opt(
    client: &impl GenericClient,
    sql: &'static str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Option<Row>, StoreError> {
    Ok(query(client, sql, parameters).await?.into_iter().next())
}

/// Like [`query`], for a statement without rows: how many it touched.
async fn execute(
    client: &impl GenericClient,
    sql: &'static str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<u64, StoreError> {
    let statement = client.prepare_cached(sql).await?;
    Ok(client.execute(&statement, parameters).await?)
}

#[async_trait]
impl Store for PostgresStore {
    async fn ping(&self) -> Result<(), StoreError> {
        on_connection!(self, client => async { Ok(client.simple_query("").await.map(drop)?) })
    }

    fn describe(&self) -> String {
        self.place.clone()
    }

    async fn reserve_ids(&self, count: u32) -> Result<Range<u64>, StoreError> {
        on_connection!(self, client => outbox::reserve_ids(client, count))
    }

    async fn send(&self, batch: &SendBatch) -> Result<Vec<SendOutcome>, StoreError> {
        on_connection!(self, client => send::send(client, batch))
    }

    async fn receipts(
        &self,
        receipts: &[Receipt],
        outbox: OutboxRow<Vec<Result<ReceiptChange, Refusal>>>,
    ) -> Result<Vec<Result<ReceiptChange, Refusal>>, StoreError> {
        on_connection!(self, client => receipts::receipts(client, receipts, &outbox))
    }

    async fn open_direct(
        &self,
        pair: (&UserId, &UserId),
        id: &ConversationId,
        outbox: OutboxRow<Conversation>,
    ) -> Result<(Conversation, bool), StoreError> {
        on_connection!(self, client => conversations::open_direct(client, pair, id, &outbox))
    }

    async fn create_conversation(
        &self,
        new: &NewConversation,
        outbox: OutboxRow<Conversation>,
    ) -> Result<Conversation, StoreError> {
        on_connection!(self, client => conversations::create(client, new, &outbox))
    }

    async fn conversation(&self, id: &ConversationId, viewer: Option<&UserId>) -> Result<Conversation, StoreError> {
        on_connection!(self, client => conversations::one(client, id, viewer))
    }

    async fn conversations(&self, user: &UserId, offset: u64, limit: u32) -> Result<Vec<Conversation>, StoreError> {
        on_connection!(self, client => conversations::of_user(client, user, offset, limit))
    }

    async fn join_password(&self, id: &ConversationId, user: &UserId) -> Result<Option<String>, StoreError> {
        on_connection!(self, client => membership::join_password(client, id, user))
    }

    async fn change_membership(
        &self,
        id: &ConversationId,
        user: &UserId,
        change: &MembershipChange,
        outbox: OutboxRow<MembershipOutcome>,
    ) -> Result<MembershipOutcome, StoreError> {
        on_connection!(self, client => membership::change(client, id, user, change, &outbox))
    }

    async fn members(&self, id: &ConversationId) -> Result<Members, StoreError> {
        on_connection!(self, client => membership::members(client, id))
    }

    async fn messages(&self, id: &ConversationId, page: Page, limit: u32) -> Result<Vec<Message>, StoreError> {
        on_connection!(self, client => history::messages(client, id, page, limit))
    }

    async fn set_block(
        &self,
        blocker: &UserId,
        blocked: &UserId,
        on: bool,
        outbox: OutboxRow<bool>,
    ) -> Result<bool, StoreError> {
        on_connection!(self, client => people::set_block(client, blocker, blocked, on, &outbox))
    }

    async fn remember_usernames(&self, users: &[(UserId, String)]) -> Result<(), StoreError> {
        on_connection!(self, client => people::remember_usernames(client, users))
    }

    async fn user_by_name(&self, username: &str) -> Result<Option<UserId>, StoreError> {
        on_connection!(self, client => people::user_by_name(client, username))
    }

    async fn set_last_seen(&self, users: &[(UserId, Timestamp)]) -> Result<(), StoreError> {
        on_connection!(self, client => people::set_last_seen(client, users))
    }

    async fn partners(&self, users: &[UserId], limit: u32) -> Result<Vec<Vec<UserId>>, StoreError> {
        on_connection!(self, client => history::partners(client, users, limit))
    }

    async fn unread(&self, users: &[UserId]) -> Result<Vec<Vec<UnreadCount>>, StoreError> {
        on_connection!(self, client => history::unread(client, users))
    }

    async fn enqueue(&self, id: u64, owner: &Owner, events: &[OutboxEvent]) -> Result<(), StoreError> {
        on_connection!(self, client => outbox::insert(client, id, owner, events))
    }

    async fn mark_published(&self, rows: &[u64], server: &str) -> Result<(), StoreError> {
        on_connection!(self, client => outbox::mark_published(client, rows, server))
    }

    async fn beat(&self, owner: &Owner) -> Result<(), StoreError> {
        on_connection!(self, client => outbox::beat(client, owner))
    }

    async fn lease_is_live(&self, owner: &str, lease_ms: u64) -> Result<bool, StoreError> {
        on_connection!(self, client => outbox::lease_is_live(client, owner, lease_ms))
    }

    async fn take_unpublished(
        &self,
        owner: &Owner,
        lease_ms: u64,
        min_age_ms: u64,
        limit: u32,
    ) -> Result<Vec<PendingRow>, StoreError> {
        on_connection!(self, client => outbox::take_unpublished(client, owner, lease_ms, min_age_ms, limit))
    }

    async fn retire_backbone(&self, server: &str) -> Result<(), StoreError> {
        on_connection!(self, client => outbox::retire_backbone(client, server))
    }

    async fn is_backbone_retired(&self, server: &str) -> Result<bool, StoreError> {
        on_connection!(self, client => outbox::is_backbone_retired(client, server))
    }

    async fn adopt_backbone(&self, server: &str) -> Result<Option<String>, StoreError> {
        on_connection!(self, client => outbox::adopt_backbone(client, server))
    }

    async fn published_elsewhere(&self, server: &str, after: u64, limit: u32) -> Result<Vec<PendingRow>, StoreError> {
        on_connection!(self, client => outbox::published_elsewhere(client, server, after, limit))
    }

    async fn prune_outbox(&self, age_ms: u64) -> Result<u64, StoreError> {
        on_connection!(self, client => outbox::prune(client, age_ms))
    }

    async fn outbox_age_ms(&self) -> Result<u64, StoreError> {
        on_connection!(self, client => outbox::age_ms(client))
    }
}
