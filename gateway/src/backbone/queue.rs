//! The queue of deliveries to publish: bounded in count and bytes. A call is answered once all of its deliveries are settled.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::backbone::redo::{Outcomes, RedoAnswer};
use crate::backbone::{BackboneError, Delivery, DeliveryOutcome};

/// The most deliveries, and bytes of their bodies, that wait or are under way. A single call over the bound is accepted if
/// nothing else waits, so that an event for a very large group can be published.
const DELIVERIES_MAX: usize = 16_384;
const BYTES_MAX: usize = 32 * 1024 * 1024;

/// One delivery, and where its outcome belongs.
pub(super) struct Job {
    pub(super) delivery: Delivery,
    /// What is to be done with it, if it is a redo; on the first try it is published, and appended if it is durable.
    pub(super) redo: Option<Box<RedoAnswer>>,
    /// It goes out only on a connection that was there by then: behind a later one others may have published it.
    pub(super) connected_by: Option<Instant>,
    pub(super) ticket: Arc<PendingCall>,
    /// The place in the call.
    pub(super) place: usize,
}

/// One call of `publish` that isn't answered yet.
pub(super) struct PendingCall {
    state: Mutex<CallState>,
    _held: QueueShare,
}

struct CallState {
    outcomes: Vec<Result<DeliveryOutcome, BackboneError>>,
    open: usize,
    done: Option<oneshot::Sender<Outcomes>>,
}

/// The sending side.
pub(super) struct Queue {
    sender: Mutex<Option<mpsc::UnboundedSender<Vec<Job>>>>,
    load: Arc<Load>,
}

#[derive(Default)]
struct Load {
    deliveries: AtomicUsize,
    bytes: AtomicUsize,
}

/// A share of the bounds, given back when dropped.
struct QueueShare {
    load: Arc<Load>,
    deliveries: usize,
    bytes: usize,
}

impl Queue {
    /// The queue, and its receiving end. The channel itself needs no bound: what is in it is counted here.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Vec<Job>>) {
        #[expect(clippy::disallowed_methods, reason = "bounded by count and bytes before anything is sent into it")]
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { sender: Mutex::new(Some(sender)), load: Arc::default() }, receiver)
    }

    /// Hands deliveries over and waits for their outcomes.
    pub(super) async fn publish(&self, deliveries: Vec<Delivery>) -> Result<Vec<DeliveryOutcome>, BackboneError> {
        let deliveries = deliveries.into_iter().map(|delivery| (delivery, None)).collect();
        self.publish_each(deliveries, None).await?.into_iter().collect()
    }

    /// Hands deliveries over, with the answers of a redo that began at `connected_by`, and waits for the outcome of each.
    pub(super) async fn publish_each(
        &self,
        deliveries: Vec<(Delivery, Option<Box<RedoAnswer>>)>,
        connected_by: Option<Instant>,
    ) -> Result<Outcomes, BackboneError> {
        if deliveries.is_empty() {
            return Ok(Vec::new());
        }
        let (done, outcomes) = oneshot::channel();
        let held = self.hold(&deliveries)?;
        let ticket = Arc::new(PendingCall {
            state: Mutex::new(CallState {
                outcomes: vec![Ok(DeliveryOutcome::To(0)); deliveries.len()],
                open: deliveries.len(),
                done: Some(done),
            }),
            _held: held,
        });
        let jobs = deliveries
            .into_iter()
            .enumerate()
            .map(|(place, (delivery, redo))| Job { delivery, redo, connected_by, ticket: ticket.clone(), place })
            .collect();
        drop(ticket);
        let sent = self.sender.lock().as_ref().is_some_and(|sender| sender.send(jobs).is_ok());
        if !sent {
            return Err(BackboneError("the backbone is closed".to_owned()));
        }
        outcomes.await.map_err(|_| BackboneError("the publisher ended".to_owned()))
    }

    /// Ends the queue: its task finishes what is there.
    pub(super) fn close(&self) {
        self.sender.lock().take();
    }

    fn hold<R>(&self, deliveries: &[(Delivery, R)]) -> Result<QueueShare, BackboneError> {
        let bytes = deliveries.iter().map(|(delivery, _)| delivery.body.len()).sum();
        let count = deliveries.len();
        let held = QueueShare { load: self.load.clone(), deliveries: count, bytes };
        let before = self.load.deliveries.fetch_add(count, Ordering::Relaxed);
        let bytes_before = self.load.bytes.fetch_add(bytes, Ordering::Relaxed);
        let over = before.saturating_add(count) > DELIVERIES_MAX || bytes_before.saturating_add(bytes) > BYTES_MAX;
        if over && before > 0 {
            return Err(BackboneError("too much waits to be published".to_owned()));
        }
        Ok(held)
    }
}

impl Drop for QueueShare {
    fn drop(&mut self) {
        self.load.deliveries.fetch_sub(self.deliveries, Ordering::Relaxed);
        self.load.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Job {
    /// Settles the delivery; the call is answered with the last of its deliveries.
    pub(super) fn settle(self, outcome: Result<DeliveryOutcome, BackboneError>) {
        let mut state = self.ticket.state.lock();
        if let Some(place) = state.outcomes.get_mut(self.place) {
            *place = outcome;
        }
        state.open = state.open.saturating_sub(1);
        if state.open == 0
            && let Some(done) = state.done.take()
        {
            // A caller that has gone needs no answer.
            let _ = done.send(std::mem::take(&mut state.outcomes));
        }
    }
}
