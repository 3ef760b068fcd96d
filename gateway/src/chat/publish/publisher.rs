//! The way to the publisher: hands over what was committed, and never waits.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::deliveries::Outgoing;
use crate::backbone::{Delivery, TopicEvent};
use crate::chat::receipt_events::receipt_events;
use crate::metrics::Metrics;
use crate::store::{CommitSink, CommittedBatch, CommittedEvents, OutboxEvent, Receipt, ReceiptChange, Refusal};

/// Rows that may wait for publication; more are left to the sweep.
const WAITING_ROWS_MAX: usize = 4096;

/// Hands over what was committed; cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    queue: mpsc::Sender<Publication>,
    in_flight: InFlight,
    metrics: Arc<Metrics>,
}

/// Rows that are on their way here: the sweep leaves them alone.
pub type InFlight = Arc<Mutex<HashSet<u64>>>;

/// What is handed over.
pub(super) enum Publication {
    /// Messages.
    Batch(CommittedBatch),
    /// Durable events.
    Events(CommittedEvents),
    /// Events that are gone if they can't be published now.
    Ephemeral(Vec<Outgoing>),
}

impl Publisher {
    /// A publisher, and the end of its queue.
    pub(super) fn new(metrics: Arc<Metrics>) -> (Self, mpsc::Receiver<Publication>) {
        let (queue, taken) = mpsc::channel(WAITING_ROWS_MAX);
        (Self { queue, in_flight: InFlight::default(), metrics }, taken)
    }

    /// Takes a committed batch of messages. Called in commit order, before their senders are answered.
    pub fn publish_batch(&self, batch: CommittedBatch) {
        self.hand_over(batch.row, Publication::Batch(batch));
    }

    /// Takes committed durable events.
    pub fn publish_events(&self, committed: CommittedEvents) {
        self.hand_over(committed.row, Publication::Events(committed));
    }

    /// Ephemeral events: gone if they can't be published now.
    pub fn publish_ephemeral(&self, deliveries: Vec<Delivery>) {
        self.try_publish(deliveries.into_iter().map(Outgoing::User).collect());
    }

    /// The same for all members of a large conversation.
    pub fn publish_notice(&self, notice: TopicEvent) {
        self.try_publish(vec![Outgoing::Topic(notice)]);
    }

    fn try_publish(&self, outgoing: Vec<Outgoing>) {
        let count = outgoing.len() as u64;
        if count > 0 && self.queue.try_send(Publication::Ephemeral(outgoing)).is_err() {
            self.metrics.dropped_ephemeral.increment(count);
        }
    }

    /// The rows that are on their way.
    #[must_use]
    pub fn in_flight(&self) -> InFlight {
        Arc::clone(&self.in_flight)
    }

    fn hand_over(&self, row: u64, committed: Publication) {
        self.in_flight.lock().insert(row);
        if self.queue.try_send(committed).is_err() {
            self.in_flight.lock().remove(&row);
            self.metrics.publish_failed.increment(1);
        }
    }
}

/// The group commit's sink.
impl CommitSink for Publisher {
    fn messages(&self, committed: CommittedBatch) {
        self.publish_batch(committed);
    }

    fn receipt_events(&self, receipts: &[Receipt], outcomes: &[Result<ReceiptChange, Refusal>]) -> Vec<OutboxEvent> {
        receipt_events(receipts, outcomes)
    }

    fn receipts(&self, committed: CommittedEvents) {
        self.publish_events(committed);
    }
}
