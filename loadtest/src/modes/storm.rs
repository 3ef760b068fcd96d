//! Connections per second that reach `auth_success` when all connect at once.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use futures_util::stream::{self, StreamExt};
use serde::Serialize;

use super::{MeasureArgs, Quantiles, link, micros, micros_histogram};
use crate::process::{CpuUse, CpuWatch};
use crate::report::{Progress, Report};
use crate::target::{Target, TargetArgs};

/// Connects as fast as it goes, holds everything until the last is through, and closes by reset.
#[derive(Debug, Clone, Args)]
pub struct StormArgs {
    /// The deployment.
    #[command(flatten)]
    pub target: TargetArgs,
    /// How many.
    #[arg(long, default_value_t = 10_000)]
    pub connections: usize,
    /// How many handshakes at once.
    #[arg(long, default_value_t = 500)]
    pub in_flight: usize,
    /// The processes to measure, and the output.
    #[command(flatten)]
    pub measure: MeasureArgs,
}

#[derive(Debug, Serialize)]
struct Outcome {
    connected: usize,
    failed: BTreeMap<String, u64>,
    seconds: f64,
    connects_per_second: f64,
    auth_success_ms: Quantiles,
    cpu_seconds: CpuUse,
}

/// Runs the measurement; `false` when a connection was refused or failed.
///
/// # Errors
/// A process under test that isn't there, or no tokens.
#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 connections")]
pub async fn storm(args: &StormArgs) -> Result<bool> {
    let target = Target::new(&args.target)?;
    // Signing is no part of what is measured.
    let tokens = (0..args.connections).map(|user| target.user(user)).collect::<Result<Vec<_>>>()?;
    let cpu = CpuWatch::start(&args.measure.pids)?;
    let progress = Progress::new();
    let mut times = micros_histogram()?;
    let mut failed: BTreeMap<String, u64> = BTreeMap::new();
    let mut held = Vec::with_capacity(args.connections);
    let begun = Instant::now();
    let mut opening = stream::iter(tokens.iter().enumerate())
        .map(|(number, (user, token))| {
            let target = &target;
            async move {
                let begun = Instant::now();
                (link::open(target, number, (user, token), None).await, begun.elapsed())
            }
        })
        .buffer_unordered(args.in_flight.max(1));
    while let Some((opened, took)) = opening.next().await {
        match opened {
            Ok(link) => {
                times.saturating_record(micros(took));
                held.push(link);
            }
            Err(error) => *failed.entry(error.label()).or_default() += 1,
        }
        if held.len().is_multiple_of(500) {
            progress.show(&format!("{} of {} connected", held.len(), args.connections));
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    progress.clear();
    let outcome = Outcome {
        connected: held.len(),
        failed,
        seconds,
        connects_per_second: held.len() as f64 / seconds,
        auth_success_ms: Quantiles::from(&times),
        cpu_seconds: cpu.read(),
    };
    let mut report = Report::new("connection storm");
    report.row("connected", outcome.connected);
    report.row("failed", format!("{:?}", outcome.failed));
    report.row("seconds", format!("{seconds:.2}"));
    report.row("connects per second", format!("{:.0}", outcome.connects_per_second));
    report.row("ms to auth_success, p50 / p90 / p99 / p99.9 / max", &outcome.auth_success_ms);
    report.row("CPU, core-seconds", &outcome.cpu_seconds);
    report.show(&outcome, args.measure.json.as_deref())?;
    Ok(outcome.failed.is_empty())
}
