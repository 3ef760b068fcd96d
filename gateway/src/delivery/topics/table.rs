//! The parts that the tasks of all large conversations use, and the table of their inlets.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use shared::{ConversationId, UserId};

use super::inlet::Inlet;
use super::shown::Shown;
use crate::delivery::registry::{PushTally, Registry};
use crate::delivery::send_queue::SendQueue;
use crate::metrics::Metrics;

/// The parts that all tasks use.
pub(super) struct Table {
    pub(super) registry: Arc<Registry>,
    pub(super) metrics: Arc<Metrics>,
    /// The way into each task.
    pub(super) inlets: Mutex<HashMap<ConversationId, Arc<Inlet>>>,
}

impl Table {
    pub(super) fn sockets_of_sender(&self, shown: &Shown) -> Vec<Arc<SendQueue>> {
        let of = |(sender, _): &(UserId, Option<String>)| self.registry.queues_of(sender);
        shown.sender.as_ref().map(of).unwrap_or_default()
    }

    pub(super) fn count(&self, tally: PushTally) {
        self.metrics.events_queued.increment(u64::from(tally.queued));
        self.metrics.dropped_ephemeral.increment(u64::from(tally.dropped));
        self.metrics.slow_consumers.increment(u64::from(tally.overflowed));
    }

    /// Forgets a conversation whose task ends, unless something has gathered for it.
    pub(super) fn forget(&self, conversation: &ConversationId, inlet: &Arc<Inlet>) -> bool {
        let mut inlets = self.inlets.lock();
        if !inlet.is_empty() {
            return false;
        }
        inlets.remove(conversation);
        #[expect(clippy::cast_precision_loss, reason = "a node has far fewer than 2^52 conversations")]
        self.metrics.topics.set(inlets.len() as f64);
        true
    }
}
