//! The process's own time, and its one ticker.
//! It offers coarse and exact monotonic times, and [`every`] for all periodic tasks.
//! It never follows the machine's clock, so a step of that clock ends no connection.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

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

/// The ticks of something that is done once in each period, until a token ends it.
#[derive(Debug)]
pub struct Ticks {
    ticks: Interval,
    stop: CancellationToken,
}

/// Ticks at once and then once in each `period`, until `stop`. Work that takes longer than the period delays the next tick,
/// so that there is no burst after it.
pub fn every(period: Duration, stop: CancellationToken) -> Ticks {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Ticks { ticks, stop }
}

impl Ticks {
    /// Waits for the next tick; `false` when it is over. Work between two ticks is not interrupted.
    pub async fn next(&mut self) -> bool {
        tokio::select! {
            _ = self.ticks.tick() => true,
            () = self.stop.cancelled() => false,
        }
    }
}

fn elapsed() -> Duration {
    start().elapsed()
}

fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}
