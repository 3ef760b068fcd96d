//! This node's lease in the store, by its own monotonic clock: a node that was paused must not publish what others took over.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::off;
use crate::store::{Owner, Store};

/// A lease that was not beaten for this long, by the store's clock, has ended: others take over.
pub(super) const LEASE: Duration = Duration::from_secs(10);
/// How long this node believes in its own beat: well below [`LEASE`], for a publication takes its time.
const BELIEVED: Duration = Duration::from_secs(5);
/// So long without a beat, and others may have taken over what this node committed before.
const LAPSE: Duration = Duration::from_secs(8);
/// How long a lease that may have lapsed is not believed in, though it is beaten again: longer than any call of the store, so
/// that no commit from before the lapse is published from here. The sweep has it, and knows what others published.
const LAPSE_PAUSE: Duration = Duration::from_secs(6);
/// How often it is beaten.
const BEAT_EVERY: Duration = Duration::from_secs(1);

/// When the lease was last beaten.
#[derive(Debug, Default)]
pub struct Lease {
    beaten: Mutex<Option<Beat>>,
}

#[derive(Debug, Clone, Copy)]
struct Beat {
    at: Instant,
    /// Not believed in before.
    believed_from: Instant,
}

impl Beat {
    fn after(earlier: Option<Self>, at: Instant) -> Self {
        let believed_from = match earlier {
            None => at,
            Some(earlier) if at.saturating_duration_since(earlier.at) < LAPSE => earlier.believed_from,
            Some(_) => Instant::now() + LAPSE_PAUSE,
        };
        Self { at, believed_from }
    }
}

impl Lease {
    /// Whether this node may publish what it committed.
    #[must_use]
    pub fn is_held(&self) -> bool {
        off::is("lease")
            || self
                .beaten
                .lock()
                .is_some_and(|beat| beat.at.elapsed() < BELIEVED && beat.believed_from <= Instant::now())
    }

    /// Beats until `stop`.
    pub async fn keep(&self, store: &dyn Store, owner: &Owner, stop: CancellationToken) {
        let mut beat = tokio::time::interval(BEAT_EVERY);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = beat.tick() => {}
                () = stop.cancelled() => return,
            }
            self.beat(store, owner).await;
        }
    }

    /// Beats once. What counts is when the store was asked, not when it answered.
    pub async fn beat(&self, store: &dyn Store, owner: &Owner) {
        let asked = Instant::now();
        match store.beat(owner).await {
            Ok(()) => {
                let mut beaten = self.beaten.lock();
                *beaten = Some(Beat::after(*beaten, asked));
            }
            Err(error) => tracing::debug!(%error, "the lease could not be beaten"),
        }
    }
}
