//! A client's action after a close or a refusal (close codes by range: `shared::CloseCode`), and its wait.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// The longest wait between two attempts.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// The next action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReconnectAction {
    /// Never come back: an operator has to change something.
    Stop,
    /// Wait, longer each time, with jitter; then resume.
    BackOff,
    /// Resume at once.
    Resume,
    /// Get a new token, then resume.
    NewToken,
    /// Connect without a position and fetch everything.
    WithoutPosition,
}

/// The action after this close code; `None` if the connection broke without one.
#[must_use]
pub fn after_close(code: Option<u16>) -> ReconnectAction {
    match code {
        Some(4000..=4099) => ReconnectAction::Stop,
        Some(4100..=4199) => ReconnectAction::BackOff,
        Some(4200..=4299) => ReconnectAction::Resume,
        Some(4300) => ReconnectAction::NewToken,
        Some(4301) => ReconnectAction::WithoutPosition,
        Some(_) | None => ReconnectAction::BackOff,
    }
}

/// The action after an upgrade was refused with this HTTP status.
#[must_use]
pub fn after_refusal(status: u16) -> ReconnectAction {
    match status {
        400 | 403 | 404 => ReconnectAction::Stop,
        401 => ReconnectAction::NewToken,
        _ => ReconnectAction::BackOff,
    }
}

/// The most time that passes before a resume that needs no wait, in milliseconds.
const RESUME_MS_MAX: u64 = 50;

/// A client's waits, each with jitter from the client's own generator. Those between attempts double.
#[derive(Debug)]
pub struct Backoff {
    failures: u32,
    random: StdRng,
}

impl Backoff {
    /// The waits of a client that has not failed yet.
    #[must_use]
    pub fn new(random: StdRng) -> Self {
        Self { failures: 0, random }
    }

    /// The waits of something that the client does on the side.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self::new(StdRng::from_rng(&mut self.random))
    }

    /// How long to wait before a resume that may come at once.
    pub fn at_once(&mut self) -> Duration {
        Duration::from_millis(self.random.random_range(0..RESUME_MS_MAX))
    }

    /// A moment in the first nine tenths of this window.
    pub fn within(&mut self, window: Duration) -> Duration {
        window.mul_f64(self.random.random_range(0.0..=0.9))
    }

    /// How long to wait when the server asked for this much: up to half as long again.
    pub fn at_least(&mut self, wait: Duration) -> Duration {
        wait.mul_f64(self.random.random_range(1.0..=1.5))
    }

    /// How long to wait before the next attempt; at least `at_least` (a `Retry-After`).
    pub fn wait(&mut self, at_least: Option<Duration>) -> Duration {
        let whole = Duration::from_millis(200).saturating_mul(1 << self.failures.min(8)).min(WAIT_MAX);
        self.failures = self.failures.saturating_add(1);
        let jittered = whole.mul_f64(self.random.random_range(0.5..=1.0));
        // A server's wish is spread too, or everybody comes back at the same moment.
        let wished = at_least.unwrap_or_default().min(Duration::from_secs(30));
        if jittered > wished { jittered } else { wished + whole.mul_f64(self.random.random_range(0.0..=0.5)) }
    }

    /// A connection was authenticated.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use shared::CloseCode;

    use super::*;

    #[test]
    fn close_codes_by_range() {
        for (code, next) in [
            (Some(CloseCode::InvalidToken.code()), ReconnectAction::Stop),
            (Some(CloseCode::TooManyErrors.code()), ReconnectAction::Stop),
            (Some(4099), ReconnectAction::Stop),
            (Some(CloseCode::OverCapacity.code()), ReconnectAction::BackOff),
            (Some(CloseCode::SlowConsumer.code()), ReconnectAction::BackOff),
            (Some(CloseCode::Draining.code()), ReconnectAction::Resume),
            (Some(CloseCode::ForceReconnect.code()), ReconnectAction::Resume),
            (Some(CloseCode::TokenExpired.code()), ReconnectAction::NewToken),
            (Some(CloseCode::PositionLost.code()), ReconnectAction::WithoutPosition),
            (Some(1001), ReconnectAction::BackOff),
            (None, ReconnectAction::BackOff),
        ] {
            assert_eq!(after_close(code), next, "{code:?}");
        }
    }

    #[test]
    fn refusals_by_status() {
        assert_eq!(
            (after_refusal(503), after_refusal(429), after_refusal(502)),
            (ReconnectAction::BackOff, ReconnectAction::BackOff, ReconnectAction::BackOff)
        );
        assert_eq!((after_refusal(404), after_refusal(401)), (ReconnectAction::Stop, ReconnectAction::NewToken));
    }

    #[test]
    fn waits_grow_to_a_bound_and_honour_retry_after() {
        let mut backoff = Backoff::new(StdRng::seed_from_u64(1));
        assert!(backoff.wait(None) <= Duration::from_millis(200));
        for _ in 0..40 {
            assert!(backoff.wait(None) <= WAIT_MAX);
        }
        assert!(backoff.wait(None) >= WAIT_MAX / 2);
        backoff.succeeded();
        let wished = Duration::from_secs(3);
        assert!(backoff.wait(Some(wished)) >= wished);
    }
}
