//! Outbox rows after their commit: marked as published, taken over from dead nodes, pruned.

use async_trait::async_trait;
use shared::{MessageId, Timestamp, UserId};

use super::{OpenedDirect, OutboxEvent, Owner, StoreError, StoredMessage};

/// An outbox row that may still have to be published.
#[derive(Debug, Clone, PartialEq)]
pub struct PendingRow {
    /// The row's id.
    pub id: u64,
    /// Its owner before it was taken over.
    pub owner: String,
    /// When it was committed, by the store's clock.
    pub committed_at: Timestamp,
    /// The direct conversations that its messages opened; to be published before them.
    pub opened: Vec<OpenedDirect>,
    /// Its messages, in commit order.
    pub messages: Vec<StoredMessage>,
    /// Its other events.
    pub events: Vec<OutboxEvent>,
    /// The recipients who still lack something of it, if not all do (NOLOSS.md, C11).
    pub lacking: Option<Vec<UserId>>,
}

/// The rows of the outbox.
#[async_trait]
pub trait OutboxRows: Send + Sync + 'static {
    /// Writes an outbox row of its own, for durable events that change nothing else (notifications).
    async fn enqueue(&self, id: u64, owner: &Owner, events: &[OutboxEvent]) -> Result<(), StoreError>;

    /// Marks rows as published under the backbone server `server`, unless that server is retired: then the rows stay
    /// unpublished. A row that another transaction has locked is left out: it stays unpublished as well. `server` may name several, with `-` between them: then none of them may be retired.
    async fn mark_published(&self, rows: &[u64], server: &str) -> Result<(), StoreError>;

    /// Takes over, for `owner`, up to `limit` unpublished rows, oldest first, after row `after`, that were committed more
    /// than `min_age_ms` ago, or by a clock that has stepped back since. It takes rows of `owner` itself, of an older boot of
    /// the same node, and of owners without a live lease.
    async fn take_unpublished(
        &self,
        owner: &Owner,
        lease_ms: u64,
        min_age_ms: u64,
        (after, limit): (u64, u32),
    ) -> Result<Vec<PendingRow>, StoreError>;

    /// Notes that of an unpublished row's recipients only these still lack something of it.
    async fn narrow(&self, row: u64, lacking: &[UserId]) -> Result<(), StoreError>;

    /// These messages, as they are now, each with the milliseconds since its commit by the store's clock. Those that don't
    /// exist are left out.
    async fn stored(&self, messages: &[MessageId]) -> Result<Vec<(StoredMessage, u64)>, StoreError>;

    /// Rows published under another server than `server`, in commit order, after row `after`, at most `limit`.
    async fn published_elsewhere(&self, server: &str, after: u64, limit: u32) -> Result<Vec<PendingRow>, StoreError>;

    /// Deletes rows that were published under the current backbone server more than `age_ms` ago, and returns their
    /// number.
    async fn prune_outbox(&self, age_ms: u64) -> Result<u64, StoreError>;

    /// The age of the oldest unpublished row, in milliseconds by the store's clock.
    async fn outbox_age_ms(&self) -> Result<u64, StoreError>;
}
