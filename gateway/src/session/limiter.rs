//! How many commands a connection may send: a rate with a burst of twice that, in one number (GCRA).

use std::time::Instant;

/// Whether a command may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Allowance {
    /// It may.
    Granted,
    /// It may after this many milliseconds.
    Wait(u64),
}

/// The limit of one connection.
#[derive(Debug)]
pub(super) struct Limiter {
    /// When the bucket is full again, in microseconds since the process began to count.
    full_at_us: u64,
    per_second: u32,
}

impl Limiter {
    /// At most `per_second` commands a second and twice that at once; 0: no limit.
    #[must_use]
    pub(super) fn new(per_second: u32) -> Self {
        Self { full_at_us: 0, per_second }
    }

    /// Takes a place for one command.
    pub(super) fn check(&mut self) -> Allowance {
        if self.per_second == 0 {
            return Allowance::Granted;
        }
        self.check_at(now_us())
    }

    fn check_at(&mut self, now_us: u64) -> Allowance {
        let cost_us = 1_000_000 / u64::from(self.per_second);
        let burst_us = 2_000_000;
        let full_at_us = self.full_at_us.max(now_us) + cost_us;
        if full_at_us > now_us + burst_us {
            return Allowance::Wait((full_at_us - now_us - burst_us).div_ceil(1000));
        }
        self.full_at_us = full_at_us;
        Allowance::Granted
    }
}

fn now_us() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_micros()).unwrap_or(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_twice_the_rate_then_the_rate() {
        let mut limiter = Limiter::new(50);
        let granted = (0..150).filter(|_| limiter.check_at(0) == Allowance::Granted).count();
        assert_eq!(granted, 100);
        assert_eq!(limiter.check_at(0), Allowance::Wait(20));
        assert_eq!(limiter.check_at(20_000), Allowance::Granted);
        assert_eq!(limiter.check_at(20_000), Allowance::Wait(20));
        let granted = (0..100).filter(|n| limiter.check_at(1_000_000 + n) == Allowance::Granted).count();
        assert_eq!(granted, 49);
    }
}
