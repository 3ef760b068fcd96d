//! The healer: reads from a user's log what their sockets lack, in order, before anything later reaches them.
//!
//! Live events that don't fit a socket's position are dropped on arrival, never held back: the log has them, so one read
//! from the position brings everything in order.

use std::sync::Arc;
use std::time::Duration;

use shared::event::ResyncReason;
use shared::{Epoch, Event, UserId};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::TaskTracker;

use crate::backbone::{Backbone, BackboneError, LogHead, LogPage};
use crate::delivery::frames::Frames;
use crate::delivery::registry::{LogEvent, Registry};
use crate::metrics::Metrics;
use crate::switches;

/// Entries that one read brings: with messages of the largest size, some half of a socket's budget.
const PAGE_ENTRIES: u32 = 32;
/// Users that are healed at the same time.
const CONCURRENT_MAX: usize = 64;
/// How often a heal is tried anew while the backbone is away; after that the next resubscription brings it back.
const TRIES: u32 = 5;

/// Reads logs for the sockets of this node.
pub struct Healer {
    registry: Arc<Registry>,
    backbone: Arc<dyn Backbone>,
    metrics: Arc<Metrics>,
}

impl Healer {
    /// A healer for these sockets.
    pub fn new(registry: Arc<Registry>, backbone: Arc<dyn Backbone>, metrics: Arc<Metrics>) -> Self {
        Self { registry, backbone, metrics }
    }

    /// Heals each user that is asked for, until the queue's senders are gone.
    pub async fn run(self: Arc<Self>, mut users: mpsc::UnboundedReceiver<UserId>) {
        let permits = Arc::new(Semaphore::new(CONCURRENT_MAX));
        let tasks = TaskTracker::new();
        while let Some(user) = users.recv().await {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { break };
            let healer = Arc::clone(&self);
            tasks.spawn(async move {
                healer.heal_until_done(&user).await;
                drop(permit);
            });
        }
        tasks.close();
        tasks.wait().await;
    }

    async fn heal_until_done(&self, user: &UserId) {
        // Whoever finds a gap between the last read and the end asks again, and is heard.
        loop {
            let healed = self.try_to_heal(user).await;
            if !self.registry.end_heal(user.as_str(), healed) {
                return;
            }
        }
    }

    async fn try_to_heal(&self, user: &UserId) -> bool {
        for attempt in 1..=TRIES {
            match self.heal(user).await {
                Ok(()) => return true,
                Err(error) if attempt == TRIES => {
                    self.metrics.heals_failed.increment(1);
                    tracing::debug!(%user, %error, "a log could not be read");
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(200) * attempt).await,
            }
        }
        false
    }

    /// Brings every socket of the user to the end of the log, as far as it has room; it asks for the rest when it has more.
    async fn heal(&self, user: &UserId) -> Result<(), BackboneError> {
        while let Some(position) = self.registry.lowest(user.as_str()) {
            let page = self.backbone.read(user, position, PAGE_ENTRIES).await?;
            if self.registry.epoch(user.as_str()).as_ref() != Some(&page.head.epoch) {
                if switches::off("epoch-resync") {
                    return Ok(());
                }
                self.resync_epoch(user, &page.head.epoch, page.head.last);
            } else if position < page.head.floor {
                self.resync_trimmed(user, &page.head);
            } else {
                match page.entries.first() {
                    None => return Ok(()),
                    // The log has a hole of its own: somebody deleted entries. Only the store has what was in it.
                    Some((first, _)) if *first > position + 1 && !switches::off("hole-resync") => {
                        self.resync_trimmed(user, &LogHead { floor: first - 1, ..page.head });
                    }
                    Some(_) => self.deliver(user, &page),
                }
            }
        }
        Ok(())
    }

    fn deliver(&self, user: &UserId, page: &LogPage) {
        for (seq, payload) in &page.entries {
            let event = LogEvent::logged(*seq, payload);
            let tally = self.registry.push_logged(user.as_str(), &page.head.epoch, &event);
            self.metrics.healed.increment(u64::from(tally.queued));
            self.metrics.slow_consumers.increment(u64::from(tally.overflowed));
        }
    }

    /// The log has another epoch: what was in the old one can only be fetched from the store.
    pub fn resync_epoch(&self, user: &UserId, epoch: &Epoch, position: u64) {
        let notice = resync(ResyncReason::Epoch, epoch, position);
        if self.registry.change_epoch(user.as_str(), epoch, position, &notice) {
            self.metrics.resync(ResyncReason::Epoch);
        }
    }

    fn resync_trimmed(&self, user: &UserId, head: &LogHead) {
        let notice = resync(ResyncReason::Trimmed, &head.epoch, head.last);
        if self.registry.skip_to(user.as_str(), head.floor, head.last, &notice) > 0 {
            self.metrics.resync(ResyncReason::Trimmed);
        }
    }
}

/// A `resync`.
pub fn resync(reason: ResyncReason, epoch: &Epoch, seq: u64) -> Frames<'static> {
    Frames::of(&Event::Resync { reason, epoch: epoch.clone(), seq })
}
