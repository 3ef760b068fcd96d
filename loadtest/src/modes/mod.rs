//! The measurements of loadtest/RESULTS.md, a file per mode.
//! Each takes its arguments and returns whether the run went as it should, with a table and JSON.
//! No mode heals or retries, so that every failure is counted. The exception is `herd`, which measures resumes.

mod group;
mod guests;
mod herd;
mod hold;
mod idle;
mod link;
mod mixed;
mod one;
mod opening;
mod presence;
mod schedule;
mod storm;
mod strangers;
mod typing;
mod user_to_user;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::process::cpu_seconds_of_tree;

pub use group::{GroupArgs, group};
pub use herd::{HerdArgs, herd};
pub use hold::{HoldArgs, hold};
pub use idle::{IdleArgs, idle};
pub use mixed::{MixedArgs, Shares, mixed};
pub use one::{OneArgs, one};
pub use presence::{PresenceArgs, presence};
pub use storm::{StormArgs, storm};
pub use strangers::{StrangersArgs, strangers};
pub use user_to_user::{UserToUserArgs, user_to_user};

/// The arguments of every measurement beside its load.
#[derive(Debug, Clone, Args)]
pub struct MeasureArgs {
    /// A process under test; may be repeated.
    #[arg(long = "pid")]
    pub pids: Vec<u32>,
    /// Writes the result as JSON to this file, or to standard output instead of the table (-).
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// The store, whose CPU is told apart from that of the processes under test.
#[derive(Debug, Clone, Args)]
pub struct StoreArgs {
    /// The store's main process; it and those that it started are counted apart from the others.
    #[arg(long, value_name = "PID")]
    pub store_pid: Option<u32>,
}

impl StoreArgs {
    /// The store's CPU time so far, in core-seconds.
    fn cpu_seconds(&self) -> anyhow::Result<Option<f64>> {
        self.store_pid.map(cpu_seconds_of_tree).transpose()
    }
}

/// The quantiles of a latency, in milliseconds.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Quantiles {
    /// How many were measured.
    pub count: u64,
    /// Half of them are below.
    pub p50: f64,
    /// 90 % are below.
    pub p90: f64,
    /// 99 % are below.
    pub p99: f64,
    /// 99.9 % are below.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

impl From<&Histogram<u64>> for Quantiles {
    /// The quantiles of a histogram of microseconds.
    fn from(micros: &Histogram<u64>) -> Self {
        let at = |quantile| millis(micros.value_at_quantile(quantile));
        Self {
            count: micros.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: millis(micros.max()),
        }
    }
}

impl std::fmt::Display for Quantiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { p50, p90, p99, p999, max, .. } = self;
        write!(f, "{p50:.2} / {p90:.2} / {p99:.2} / {p999:.2} / {max:.2}")
    }
}

/// A histogram of microseconds up to a minute, exact to three digits.
fn micros_histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000, 3)?)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Reads or changes what a mode's readers share.
fn with<S, T>(shared: &Mutex<S>, f: impl FnOnce(&mut S) -> T) -> T {
    f(&mut shared.lock().unwrap_or_else(PoisonError::into_inner))
}

#[expect(clippy::cast_precision_loss, reason = "a latency is far below 2^52 microseconds")]
fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}
