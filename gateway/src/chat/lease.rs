//! This node's lease in the store, by its own monotonic clock. A node that was paused must not publish rows that others
//! took over.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::clock::every;
use crate::store::{Owner, Store};
use crate::switches;

/// A lease that was not beaten for this long, by the store's clock, has ended: others take over.
pub(super) const LEASE: Duration = Duration::from_secs(10);
/// How long this node relies on its own beat: well below [`LEASE`], because a publication takes its time.
const BELIEVED: Duration = Duration::from_secs(5);
/// So long from one beat to the next, and others may have taken over what this node committed before.
const LAPSE: Duration = Duration::from_secs(8);
/// How often it is beaten.
const BEAT_EVERY: Duration = Duration::from_secs(1);

/// Since when the lease is held without a lapse, and when it was last beaten.
#[derive(Debug, Default)]
pub struct Lease {
    held: Mutex<Option<LeaseTerm>>,
    /// Others shall publish what this node commits: it isn't beaten.
    is_left: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
struct LeaseTerm {
    since: Instant,
    beaten: Instant,
}

impl LeaseTerm {
    fn beat(earlier: Option<Self>, beaten: Instant) -> Self {
        let since = match earlier {
            Some(earlier) if beaten.saturating_duration_since(earlier.beaten) < LAPSE => earlier.since,
            Some(_) | None => beaten,
        };
        Self { since, beaten }
    }

    fn covers(self, begun: Instant, now: Instant) -> bool {
        self.since <= begun && now.saturating_duration_since(self.beaten) < BELIEVED
    }
}

impl Lease {
    /// Whether this node may publish what it began to commit at `begun`: its lease is held, and did not lapse meanwhile,
    /// though it be beaten again since. What was begun before belongs to the sweep, which knows what others published.
    #[must_use]
    pub fn is_held_since(&self, begun: Instant) -> bool {
        switches::off("lease") || self.held.lock().is_some_and(|held| held.covers(begun, Instant::now()))
    }

    /// Leaves what this node commits to the others, or takes it back.
    pub(super) fn leave(&self, to_others: bool) {
        self.is_left.store(to_others, Ordering::Relaxed);
    }

    /// Beats until `stop`.
    pub async fn keep(&self, store: &dyn Store, owner: &Owner, stop: CancellationToken) {
        let mut ticks = every(BEAT_EVERY, stop);
        while ticks.next().await {
            if !self.is_left.load(Ordering::Relaxed) {
                self.beat(store, owner).await;
            }
        }
    }

    /// Beats once. What counts is when the store was asked, not when it answered.
    pub async fn beat(&self, store: &dyn Store, owner: &Owner) {
        let asked = Instant::now();
        match store.beat(owner).await {
            Ok(()) => {
                let mut held = self.held.lock();
                *held = Some(LeaseTerm::beat(*held, asked));
            }
            Err(error) => tracing::debug!(%error, "the lease could not be renewed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_begun_before_a_lapse_is_not_covered_though_the_lease_is_beaten_again() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let first = LeaseTerm::beat(None, at(1.0));
        assert!(!first.covers(at(0.9), at(1.1)), "begun before the first beat");
        assert!(first.covers(at(1.0), at(5.9)) && !first.covers(at(1.0), at(6.0)), "believed for five seconds");

        let kept = LeaseTerm::beat(Some(first), at(8.9));
        assert!(kept.covers(at(1.0), at(9.0)), "no lapse");

        let again = LeaseTerm::beat(Some(kept), at(39.0));
        assert!(!again.covers(at(8.9), at(39.1)) && !again.covers(at(38.9), at(39.1)), "begun before the lapse's end");
        assert!(again.covers(at(39.0), at(39.1)));
        assert!(!LeaseTerm::beat(Some(again), at(40.0)).covers(at(38.9), at(40.1)), "a further beat changes nothing");
    }
}
