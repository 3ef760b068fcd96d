//! How long work waits in a queue, when new work is refused for it, and what the refused are told.
//! It offers [`Queue`], one for each kind of work that waits on the way of a command, and [`Busy`], the refusal.
//! It holds no work and never waits.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use metrics::{Counter, counter, gauge};
use parking_lot::Mutex;
use rand::Rng;

/// While the first in a queue has waited for longer than this, new work of its kind is refused at once.
pub const HEAD_WAIT_MAX: Duration = Duration::from_secs(1);

/// When the first refused may come again, and the last ones of an overload that goes on, in milliseconds.
const RETRY_AFTER_MS: (u64, u64) = (1_000, 20_000);
/// An overload is over when nothing was refused for so long.
const CALM: Duration = Duration::from_secs(5);

/// The queues of this process, for [`sample`].
static QUEUES: Mutex<Vec<Weak<Queue>>> = Mutex::new(Vec::new());

/// What waits in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Messages that are to be stored.
    Messages,
    /// Receipts that are to be stored.
    Receipts,
    /// Other changes that wait for a connection to the store.
    Changes,
    /// Questions that wait for a connection to the store.
    LookUps,
    /// Passwords that are to be hashed.
    Passwords,
    /// Tokens that the authentication service is asked about.
    Tokens,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Messages, Self::Receipts, Self::Changes, Self::LookUps, Self::Passwords, Self::Tokens];

    /// Its label on metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Receipts => "receipts",
            Self::Changes => "changes",
            Self::LookUps => "look_ups",
            Self::Passwords => "passwords",
            Self::Tokens => "tokens",
        }
    }

    /// As it stands in the answer to a client.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Messages => "messages wait to be stored",
            Self::Receipts => "receipts wait to be stored",
            Self::Changes => "changes wait to be stored",
            Self::LookUps => "look-ups wait for the store",
            Self::Passwords => "passwords wait to be checked",
            Self::Tokens => "tokens wait to be checked",
        }
    }
}

/// Too much of a kind waits: this was refused, and nothing of it was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many {} on this node; try again in {:.1} s", .kind.words(), seconds(.retry_after_ms))]
pub struct Busy {
    /// What waits.
    pub kind: Kind,
    /// When to come again, in milliseconds: later the longer the overload lasts, and another time for each.
    pub retry_after_ms: u64,
    /// Nothing of the kind is done at present, as if its service were away.
    pub stands_still: bool,
}

#[expect(clippy::cast_precision_loss, reason = "it is below a minute")]
fn seconds(milliseconds: &u64) -> f64 {
    *milliseconds as f64 / 1000.0
}

/// How long the work of one kind waits on this node.
pub struct Queue {
    kind: Kind,
    refused: Counter,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Since when each waits; the number tells apart those of one moment.
    waiting: BTreeSet<(Instant, u64)>,
    number: u64,
    /// When the last of them was done.
    done: Option<Instant>,
    overload: Option<Overload>,
}

/// A time in which work is refused.
#[derive(Debug, Clone, Copy)]
struct Overload {
    since: Instant,
    last: Instant,
}

impl Overload {
    /// The overload that a refusal at `now` belongs to.
    fn at(now: Instant, earlier: Option<Self>) -> Self {
        match earlier {
            Some(earlier) if now.saturating_duration_since(earlier.last) < CALM => Self { last: now, ..earlier },
            Some(_) | None => Self { since: now, last: now },
        }
    }

    /// The middle of the times at which the refused may come again, in milliseconds: as long as it has lasted.
    fn retry_after_ms(self) -> u64 {
        let (least, most) = RETRY_AFTER_MS;
        let lasted = self.last.saturating_duration_since(self.since).as_millis();
        u64::try_from(lasted).unwrap_or(most).clamp(least, most)
    }
}

/// Something that waits in a queue until this is dropped.
pub struct Waiting {
    queue: Arc<Queue>,
    entry: (Instant, u64),
}

impl Queue {
    /// An empty queue.
    #[must_use]
    pub fn new(kind: Kind) -> Arc<Self> {
        let refused = counter!("parley_refused_total", "kind" => kind.label());
        let queue = Arc::new(Self { kind, refused, state: Mutex::default() });
        let mut queues = QUEUES.lock();
        queues.retain(|queue| queue.strong_count() > 0);
        queues.push(Arc::downgrade(&queue));
        queue
    }

    /// Something waits since then.
    #[must_use]
    pub fn wait(self: &Arc<Self>, since: Instant) -> Waiting {
        let mut state = self.state.lock();
        state.number += 1;
        let entry = (since, state.number);
        state.waiting.insert(entry);
        Waiting { queue: Arc::clone(self), entry }
    }

    /// How long the first has waited.
    #[must_use]
    pub fn head_age(&self) -> Duration {
        self.state.lock().waiting.first().map_or(Duration::ZERO, |(since, _)| since.elapsed())
    }

    /// Whether the first has waited for too long to take more.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.head_age() > HEAD_WAIT_MAX
    }

    /// The same, and nothing was done for as long: the queue stands still.
    #[must_use]
    pub fn stands_still(&self) -> bool {
        self.is_late() && self.state.lock().done.is_none_or(|done| done.elapsed() > HEAD_WAIT_MAX)
    }

    /// Refuses one, because too many wait.
    #[must_use]
    pub fn refuse(&self) -> Busy {
        self.refuse_as(false)
    }

    /// The same; says whether anything of the kind is done at present.
    #[must_use]
    pub fn refuse_as(&self, stands_still: bool) -> Busy {
        self.refused.increment(1);
        let mut state = self.state.lock();
        let overload = Overload::at(Instant::now(), state.overload);
        state.overload = Some(overload);
        drop(state);
        let middle = overload.retry_after_ms();
        let retry_after_ms = rand::rng().random_range(middle / 2..middle + middle / 2);
        Busy { kind: self.kind, retry_after_ms, stands_still }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        state.waiting.remove(&self.entry);
        state.done = Some(Instant::now());
    }
}

/// Writes the gauges, which change while nothing happens.
pub fn sample() {
    let queues: Vec<Arc<Queue>> = QUEUES.lock().iter().filter_map(Weak::upgrade).collect();
    for kind in Kind::ALL {
        let ages = queues.iter().filter(|queue| queue.kind == kind).map(|queue| queue.head_age());
        let age = ages.max().unwrap_or_default();
        gauge!("parley_queue_head_seconds", "kind" => kind.label()).set(age.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refused_are_told_to_come_later_the_longer_it_lasts_and_never_all_at_once() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let first = Overload::at(at(0), None);
        assert_eq!(first.retry_after_ms(), 1_000);
        let later = Overload::at(at(4), Some(first));
        assert_eq!(later.retry_after_ms(), 4_000);
        let last = (2..20).fold(later, |overload, n| Overload::at(at(4 * n), Some(overload)));
        assert_eq!(last.retry_after_ms(), 20_000);
        let anew = Overload::at(at(76) + CALM, Some(last));
        assert_eq!(anew.retry_after_ms(), 1_000, "after a calm it begins anew");

        let queue = Queue::new(Kind::Passwords);
        let told: BTreeSet<u64> = (0..100).map(|_| queue.refuse().retry_after_ms).collect();
        assert!(told.len() > 50 && told.iter().all(|ms| (500..1_500).contains(ms)), "{told:?}");
        let text = Busy { kind: Kind::Messages, retry_after_ms: 1_437, stands_still: false }.to_string();
        assert_eq!(text, "too many messages wait to be stored on this node; try again in 1.4 s");
    }

    #[test]
    fn the_first_that_waits_is_the_oldest_that_is_not_done() {
        let queue = Queue::new(Kind::LookUps);
        let long_ago = Instant::now().checked_sub(Duration::from_secs(3)).expect("the clock runs for longer");
        let old = queue.wait(long_ago);
        let new = queue.wait(Instant::now());
        assert!(queue.is_late() && queue.stands_still());
        drop(old);
        assert!(!queue.is_late() && !queue.stands_still());
        let old = queue.wait(long_ago);
        assert!(queue.is_late() && !queue.stands_still(), "something was just done");
        drop((old, new));
        assert_eq!(queue.head_age(), Duration::ZERO);
    }
}
