//! The process's own clock: monotonic, so that a step of the machine's clock ends no connection.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Coarse seconds on this process's monotonic clock, from 1.
pub fn coarse_s() -> u32 {
    u32::try_from(elapsed().as_secs()).unwrap_or(u32::MAX - 1) + 1
}

/// Microseconds on the same clock.
pub fn now_us() -> u64 {
    us_at(Instant::now())
}

/// The same at another moment; 0 if the clock didn't run yet.
pub fn us_at(moment: Instant) -> u64 {
    u64::try_from(moment.saturating_duration_since(start()).as_micros()).unwrap_or(u64::MAX / 2)
}

fn elapsed() -> Duration {
    start().elapsed()
}

fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}
