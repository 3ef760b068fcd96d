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

#[derive(Debug, Clone, Copy)]
enum State {
    Closed {
        failures: u32,
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
}

impl Breaker {
    /// A closed one. Once open, it lets one call through each `open_for`. `open` shows which it is.
    #[must_use]
    pub fn new(open_for: Duration, open: Gauge) -> Self {
        open.set(0.0);
        Self { state: Mutex::new(State::Closed { failures: 0 }), open_for, open }
    }

    /// Leave to ask.
    ///
    /// # Errors
    /// How long there is none.
    pub fn attempt(&self) -> Result<Attempt<'_>, Duration> {
        let mut state = self.state.lock();
        match *state {
            State::Closed { .. } => {}
            State::Open { until } => {
                let now = Instant::now();
                if now < until {
                    return Err(until - now);
                }
                *state = State::Probing;
            }
            State::Probing => return Err(self.open_for),
        }
        Ok(Attempt { breaker: self })
    }

    fn open(&self) -> State {
        self.open.set(1.0);
        State::Open { until: Instant::now() + self.open_for }
    }
}

impl Attempt<'_> {
    /// The service answered.
    pub fn succeeded(self) {
        self.breaker.open.set(0.0);
        *self.breaker.state.lock() = State::Closed { failures: 0 };
    }

    /// It didn't.
    pub fn failed(self) {
        let mut state = self.breaker.state.lock();
        *state = match *state {
            State::Closed { failures } if failures + 1 < FAILURES_MAX => State::Closed { failures: failures + 1 },
            State::Closed { .. } | State::Probing => self.breaker.open(),
            State::Open { until } => State::Open { until },
        };
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
