//! The gate before the pool: a call waits here for leave to have a connection, for a bounded time and among a bounded
//! number. Calls of one purpose keep their order and never hold up those of another.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::shares::{News, OfEach, Purpose, Shares};
use crate::overload::{HEAD_WAIT_MAX, Kind, Queue};
use crate::store::StoreError;

/// The most calls of one purpose that wait.
const WAITING_MAX: usize = 1_024;

/// How long a commit or a lease waits: one try of a batch may take no longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The gate.
pub(super) struct Gate {
    state: Mutex<State>,
    changes: Arc<Queue>,
    look_ups: Arc<Queue>,
}

#[derive(Default)]
struct State {
    shares: Shares,
    waiting: OfEach<VecDeque<Waiter>>,
    /// One of the purpose waited in vain, and no connection has come back since.
    is_stuck: OfEach<bool>,
}

/// A call that waits. It has given up if nobody receives its leave.
type Waiter = oneshot::Sender<Leave>;

/// Leave to have a connection until this is dropped.
pub(super) struct Leave {
    gate: Arc<Gate>,
    purpose: Purpose,
}

impl Gate {
    pub(super) fn new() -> Arc<Self> {
        let (changes, look_ups) = (Queue::new(Kind::Changes), Queue::new(Kind::LookUps));
        Arc::new(Self { state: Mutex::default(), changes, look_ups })
    }

    /// Waits for leave, since `since`. A call that has had leave already, and found no connection, goes first.
    pub(super) async fn enter(
        self: &Arc<Self>,
        purpose: Purpose,
        since: Instant,
        goes_first: bool,
    ) -> Result<Leave, StoreError> {
        let until = since + self.patience(purpose);
        let waited = {
            let mut state = self.state.lock();
            let State { shares, waiting, is_stuck } = &mut *state;
            let queue = waiting.of_mut(purpose);
            forget_gone(queue);
            if (queue.is_empty() || goes_first) && shares.take(purpose, Instant::now()) {
                return Ok(Leave { gate: Arc::clone(self), purpose });
            }
            if queue.len() >= WAITING_MAX || *is_stuck.of(purpose) {
                drop(state);
                return Err(self.refusal(purpose));
            }
            let (leave, given) = oneshot::channel();
            if goes_first {
                queue.push_front(leave);
            } else {
                queue.push_back(leave);
            }
            given
        };
        let _waiting = self.queue(purpose).map(|queue| queue.wait(since));
        // Who waits may be the one for whom a further connection is to be tried.
        self.pass_on();
        if let Ok(Ok(leave)) = tokio::time::timeout_at(until.into(), waited).await {
            return Ok(leave);
        }
        *self.state.lock().is_stuck.of_mut(purpose) = true;
        Err(self.refusal(purpose))
    }

    /// PostgreSQL refused a connection to a call that has leave.
    pub(super) fn refused(&self) -> Option<News> {
        self.state.lock().shares.refused(Instant::now())
    }

    /// A connection is lent, one of `living`.
    pub(super) fn connected(self: &Arc<Self>, living: usize) -> Option<News> {
        let news = self.state.lock().shares.connected(living);
        if news.is_some() {
            self.pass_on();
        }
        news
    }

    /// Gives leave to those whose turn it is.
    fn pass_on(self: &Arc<Self>) {
        // Leave that nobody took comes back when it is dropped, which must not happen under the lock.
        let mut untaken = Vec::new();
        let mut state = self.state.lock();
        while let Some(purpose) = next(&mut state) {
            let Some(waiter) = state.waiting.of_mut(purpose).pop_front() else { break };
            untaken.extend(waiter.send(Leave { gate: Arc::clone(self), purpose }).err());
        }
        drop(state);
    }

    fn refusal(&self, purpose: Purpose) -> StoreError {
        match self.queue(purpose) {
            Some(queue) => queue.refuse().into(),
            None => StoreError::Unavailable("no connection to PostgreSQL became free in time".into()),
        }
    }

    /// The queue that clients notice; the others are the node's own.
    fn queue(&self, purpose: Purpose) -> Option<&Arc<Queue>> {
        match purpose {
            Purpose::Control | Purpose::Commit => None,
            Purpose::Change => Some(&self.changes),
            Purpose::LookUp => Some(&self.look_ups),
        }
    }

    fn patience(&self, purpose: Purpose) -> Duration {
        self.queue(purpose).map_or(PATIENCE, |_| HEAD_WAIT_MAX)
    }
}

/// Those at the front came first, so they are the first to give up.
fn forget_gone(queue: &mut VecDeque<Waiter>) {
    while queue.front().is_some_and(Waiter::is_closed) {
        queue.pop_front();
    }
}

/// The purpose whose first call has leave now.
fn next(state: &mut State) -> Option<Purpose> {
    let State { shares, waiting, .. } = state;
    let now = Instant::now();
    shares.turns().find(|purpose| {
        let queue = waiting.of_mut(*purpose);
        forget_gone(queue);
        !queue.is_empty() && shares.take(*purpose, now)
    })
}

impl Drop for Leave {
    fn drop(&mut self) {
        let mut state = self.gate.state.lock();
        state.shares.give_back(self.purpose);
        state.is_stuck = OfEach::default();
        drop(state);
        self.gate.pass_on();
    }
}
