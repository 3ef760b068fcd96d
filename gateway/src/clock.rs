//! The process's own clock: coarse, monotonic, so that a step of the machine's clock ends no connection.

use std::sync::OnceLock;
use std::time::Instant;

/// Seconds on this process's monotonic clock, from 1.
pub fn coarse_s() -> u32 {
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed_s = START.get_or_init(Instant::now).elapsed().as_secs();
    u32::try_from(elapsed_s).unwrap_or(u32::MAX - 1) + 1
}
