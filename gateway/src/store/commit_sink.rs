//! The way from a commit to its publication: what a [`GroupCommit`](super::GroupCommit) hands on, and the trait of the
//! taker.

use std::time::Instant;

use super::{OpenedDirect, OutboxEvent, Receipt, ReceiptChange, Refusal, StoredMessage};

/// Takes what a group commit has committed, and publishes it. Each call comes in commit order, before the callers are
/// answered, and must not block.
pub trait CommitSink: Send + Sync + 'static {
    /// Takes a committed batch of messages.
    fn messages(&self, committed: CommittedBatch);

    /// Builds the events of a batch of receipts from its outcomes: the same events for the same input. The group commit
    /// writes them into the outbox row.
    fn receipt_events(&self, receipts: &[Receipt], outcomes: &[Result<ReceiptChange, Refusal>]) -> Vec<OutboxEvent>;

    /// Takes the events of a committed batch of receipts.
    fn receipts(&self, committed: CommittedEvents);
}

/// The messages that a batch stored, to be published and then marked by `row`.
#[derive(Debug, Clone)]
pub struct CommittedBatch {
    /// The outbox row.
    pub row: u64,
    /// The direct conversations that were opened for them, to be published first.
    pub opened: Vec<OpenedDirect>,
    /// The messages in commit order, at least one.
    pub messages: Vec<StoredMessage>,
    /// When its first try began.
    pub begun: Instant,
}

/// Durable events that were committed with a change, to be published and then marked by `row`.
#[derive(Debug, Clone)]
pub struct CommittedEvents {
    /// The outbox row.
    pub row: u64,
    /// Its events, at least one.
    pub events: Vec<OutboxEvent>,
    /// When its first try began.
    pub begun: Instant,
}
