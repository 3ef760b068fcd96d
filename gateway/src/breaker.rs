//! A circuit breaker: after repeated failures no request is made for a while, then one at a time.

use std::time::{Duration, Instant};

use metrics::Gauge;
use parking_lot::Mutex;

/// Failures in a row that open it.
const FAILURES_MAX: u32 = 5;

/// Whether a service is called.
pub struct Breaker {
    state: Mutex<State>,
    /// How long it stays open.
    open_for: Duration,
    /// 1 while the service isn't called.
    open: Gauge,
}

#[derive(Debug)]
enum State {
    Closed {
        failures: u32,
        /// Whose failures these are, and when each was noted.
        blamed: Vec<(u64, Instant)>,
    },
    Open {
        until: Instant,
    },
    /// One was let through to see.
    Probing,
}

/// A permit for one call. Its outcome has to be reported; dropped without that, it leaves the breaker as it was.
pub struct Attempt<'a> {
    breaker: &'a Breaker,
    begun: Instant,
}

impl Breaker {
    /// A closed one. Once open, it lets one call through each `open_for`. `open` shows which it is.
    #[must_use]
    pub fn new(open_for: Duration, open: Gauge) -> Self {
        open.set(0.0);
        Self { state: Mutex::new(State::closed()), open_for, open }
    }

    /// Leave to ask.
    ///
    /// # Errors
    /// How long there is none.
    pub fn attempt(&self) -> Result<Attempt<'_>, Duration> {
        let mut state = self.state.lock();
        let now = Instant::now();
        match *state {
            State::Closed { .. } => {}
            State::Open { until } => {
                if now < until {
                    return Err(until - now);
                }
                *state = State::Probing;
            }
            State::Probing => return Err(self.open_for),
        }
        Ok(Attempt { breaker: self, begun: now })
    }

    fn open(&self) -> State {
        self.open.set(1.0);
        State::Open { until: Instant::now() + self.open_for }
    }
}

impl State {
    fn closed() -> Self {
        Self::Closed { failures: 0, blamed: Vec::new() }
    }
}

impl Attempt<'_> {
    /// The service answered.
    pub fn succeeded(self) {
        self.breaker.open.set(0.0);
        *self.breaker.state.lock() = State::closed();
    }

    /// It didn't.
    pub fn failed(self) {
        self.failed_for(&[]);
    }

    /// It didn't, and that may be due to the one for whom it was asked, by any of these names. Calls for one of them that
    /// are under way side by side count as one failure.
    pub fn failed_for(self, names: &[u64]) {
        let mut state = self.breaker.state.lock();
        match &mut *state {
            State::Closed { failures, blamed } => {
                let is_same = |&(name, noted): &(u64, Instant)| noted > self.begun && names.contains(&name);
                if blamed.iter().any(is_same) {
                    return;
                }
                *failures += 1;
                let noted = Instant::now();
                blamed.extend(names.iter().map(|name| (*name, noted)));
                if *failures >= FAILURES_MAX {
                    *state = self.breaker.open();
                }
            }
            State::Probing => *state = self.breaker.open(),
            State::Open { .. } => {}
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        // The one that was to see is gone without an answer: the next one sees.
        let mut state = self.breaker.state.lock();
        if matches!(*state, State::Probing) {
            *state = State::Open { until: Instant::now() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN_FOR: Duration = Duration::from_secs(5);

    #[test]
    fn failures_of_one_side_by_side_are_one() {
        let breaker = breaker();
        let side_by_side: Vec<_> = (0..20).map(|n| (leave(&breaker), [n % 4, 100 + n])).collect();
        side_by_side.into_iter().for_each(|(attempt, names)| attempt.failed_for(&names));
        // Four, and the fifth from another.
        leave(&breaker).failed_for(&[9, 109]);
        assert!(breaker.attempt().is_err());
        expire(&breaker);
        leave(&breaker).succeeded();
        (0..FAILURES_MAX).for_each(|_| leave(&breaker).failed_for(&[1, 101]));
        assert!(breaker.attempt().is_err(), "one after the other they count");
    }

    fn breaker() -> Breaker {
        Breaker::new(OPEN_FOR, Gauge::noop())
    }

    fn leave(breaker: &Breaker) -> Attempt<'_> {
        breaker.attempt().unwrap_or_else(|wait| panic!("there is no leave for {wait:?}"))
    }

    fn expire(breaker: &Breaker) {
        *breaker.state.lock() = State::Open { until: Instant::now() };
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_one_success_closes_it() {
        let breaker = breaker();
        for _ in 0..3 {
            (1..FAILURES_MAX).for_each(|_| leave(&breaker).failed());
            leave(&breaker).succeeded();
        }
        (0..FAILURES_MAX).for_each(|_| leave(&breaker).failed());
        assert!(breaker.attempt().err().is_some_and(|wait| wait <= OPEN_FOR));
        expire(&breaker);
        let probe = leave(&breaker);
        assert!(breaker.attempt().is_err(), "only one");
        probe.failed();
        assert!(breaker.attempt().is_err());
        expire(&breaker);
        drop(leave(&breaker));
        leave(&breaker).succeeded();
        assert!(breaker.attempt().is_ok() && breaker.attempt().is_ok());
    }
}
