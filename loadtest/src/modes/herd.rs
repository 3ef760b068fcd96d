//! A resume herd: all listeners are cut off at once, by resets or because their node is killed, and resume at once,
//! while messages for them go on. The clients and the check are the oracle's.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context, Result, ensure};
use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;
use shared::MessageId;

use super::{MeasureArgs, Quantiles, StoreArgs, micros_histogram, schedule};
use crate::oracle::{Cast, DeviceLog, Entry, Evidence, HerdCost, HerdPlan, OracleArgs, Run, Verdict, play};
use crate::process::CostWatch;
use crate::report::Report;
use crate::seed::Seed;
use crate::target::{Target, TargetArgs};

/// Cuts all listeners off at once and measures how they come back; each message has to reach them exactly once.
#[derive(Debug, Clone, Args)]
pub struct HerdArgs {
    /// The deployment.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Its REST interface, `http://host:port`, where clients fetch what a resync owes them. May be repeated.
    #[arg(long = "http", required = true, value_name = "HTTP_URL")]
    pub http: Vec<String>,
    /// How many connections are cut off, one user each.
    #[arg(long, default_value_t = 2000)]
    pub connections: usize,
    /// How many other users send to them; they stay connected.
    #[arg(long, default_value_t = 50)]
    pub senders: usize,
    /// Messages per second, all the time.
    #[arg(long, default_value_t = 500.0, value_parser = schedule::rate)]
    pub rate: f64,
    /// For how long.
    #[arg(long, default_value_t = 20)]
    pub seconds: u64,
    /// When the connections are cut, in seconds from the first message.
    #[arg(long, default_value_t = 5)]
    pub cut_at: u64,
    /// Kills this process (SIGKILL) in place of the resets: the node at the first --url. All that listen are there, those
    /// who send at the other addresses; --http names living nodes only.
    #[arg(long, value_name = "PID")]
    pub kill: Option<u32>,
    /// How long to wait afterwards until everybody is back and has everything.
    #[arg(long, default_value_t = 60)]
    pub settle_seconds: u64,
    /// How long a message is, in bytes.
    #[arg(long, default_value_t = 120)]
    pub content_bytes: usize,
    /// Draws the scenario from this seed, as `oracle --seed` does [default: a random one, which is printed].
    #[arg(long, value_name = "N")]
    pub seed: Option<Seed>,
    /// How busy the store is before the herd and while it comes back.
    #[command(flatten)]
    pub store: StoreArgs,
    /// The processes to measure, and the output.
    #[command(flatten)]
    pub measure: MeasureArgs,
}

#[derive(Debug, Serialize)]
struct Outcome {
    connections: u64,
    back: u64,
    back_ms: Quantiles,
    resumed: u64,
    resyncs: u64,
    refusals: BTreeMap<String, u64>,
    delivery_ms_meanwhile: Quantiles,
    delivery_ms_otherwise: Quantiles,
    /// Between the cut and the last one back; nothing if not everybody came.
    #[serde(flatten)]
    cost: Option<HerdCost>,
    oracle: Verdict,
}

/// The counts made while the evidence is read.
struct Tally {
    cut_us: u64,
    back: Histogram<u64>,
    resumed: u64,
    resyncs: u64,
    refusals: BTreeMap<String, u64>,
}

/// Runs the measurement; `false` when somebody didn't come back, or the oracle found a fault.
///
/// # Errors
/// A load that makes no sense, or an oracle that can't run.
pub async fn herd(args: &HerdArgs) -> Result<bool> {
    ensure!(args.connections > 0 && args.senders > 0, "--connections and --senders are 1 at least");
    ensure!(args.cut_at < args.seconds, "--cut-at is below --seconds: messages have to be sent meanwhile");
    Target::new(&args.target)?.only_parley()?;
    ensure!(args.kill.is_none() || args.target.urls.len() > 1, "--kill needs another --url to come back to");
    // Rather now than when they are cut.
    CostWatch::start(&args.measure.pids)?;
    CostWatch::start(args.kill.as_slice())?;
    args.store.cpu_seconds()?;
    let plan = HerdPlan { pids: args.measure.pids.clone(), kill: args.kill, store: args.store.store_pid };
    let run = play(&oracle_args(args), Cast::Speakers(args.senders), &plan).await?;
    let outcome = outcome(args, run)?;
    report(&outcome).show(&outcome, args.measure.json.as_deref())?;
    Ok(outcome.back == outcome.connections && outcome.oracle.is_clean())
}

fn oracle_args(args: &HerdArgs) -> OracleArgs {
    OracleArgs {
        target: args.target.clone(),
        http: args.http.clone(),
        api_key: None,
        users: args.senders + args.connections,
        devices: 1,
        streams: 0,
        speakers: None,
        pairs: None,
        groups: 0,
        group_size: 0,
        rate: args.rate,
        seconds: args.seconds,
        settle_seconds: args.settle_seconds,
        content_bytes: args.content_bytes,
        stalled_receivers: 0,
        stall_seconds: 0,
        herd_at: Some(args.cut_at),
        raced: false,
        seed: args.seed,
        database_url: None,
        json: None,
    }
}

fn outcome(args: &HerdArgs, run: Run) -> Result<Outcome> {
    let Run { evidence, verdict, herd } = run;
    let herd = herd.context("the run was over before the connections were cut")?;
    let cut_us = herd.cut_us;
    let mut tally = Tally { cut_us, back: micros_histogram()?, resumed: 0, resyncs: 0, refusals: BTreeMap::new() };
    for device in evidence.devices.iter().skip(args.senders) {
        tally.take(&device.log);
    }
    let (meanwhile, otherwise) = deliveries(&evidence, args.senders, cut_us..=cut_us + tally.back.max())?;
    Ok(Outcome {
        connections: args.connections as u64,
        back: tally.back.len(),
        back_ms: Quantiles::from(&tally.back),
        resumed: tally.resumed,
        resyncs: tally.resyncs,
        refusals: tally.refusals,
        delivery_ms_meanwhile: Quantiles::from(&meanwhile),
        delivery_ms_otherwise: Quantiles::from(&otherwise),
        cost: herd.cost,
        oracle: verdict,
    })
}

impl Tally {
    /// Takes what happened to one of the herd since the cut.
    fn take(&mut self, log: &DeviceLog) {
        let mut back = false;
        for record in log.records.iter().filter(|record| record.at_us >= self.cut_us) {
            match &record.entry {
                Entry::Opened { asked, resumed, .. } => {
                    if !std::mem::replace(&mut back, true) {
                        self.back.saturating_record(record.at_us - self.cut_us);
                    }
                    self.resumed += u64::from(asked.is_some() && *resumed);
                }
                Entry::Resync { .. } => self.resyncs += 1,
                Entry::Durable { .. }
                | Entry::Direct(_)
                | Entry::Position { .. }
                | Entry::Fetched { .. }
                | Entry::Adopted
                | Entry::Closed => {}
            }
        }
        for failure in log.failures.iter().filter(|failure| failure.at_us >= self.cut_us) {
            *self.refusals.entry(failure.why.clone()).or_default() += 1;
        }
    }
}

/// How long messages took from their intended moment to those who listen: those that were meant to leave in this time,
/// and all others.
fn deliveries(
    evidence: &Evidence,
    senders: usize,
    meanwhile: std::ops::RangeInclusive<u64>,
) -> Result<(Histogram<u64>, Histogram<u64>)> {
    let meant_us: HashMap<&str, u64> =
        evidence.attempts.iter().map(|attempt| (attempt.temp_id.as_str(), attempt.at_us)).collect();
    let sent_us: HashMap<MessageId, u64> = evidence
        .stored
        .iter()
        .filter_map(|row| Some((row.message.id, *meant_us.get(row.temp_id.as_deref()?)?)))
        .collect();
    let (mut within, mut beside) = (micros_histogram()?, micros_histogram()?);
    for device in evidence.devices.iter().skip(senders) {
        let mut seen = HashSet::new();
        for record in &device.log.records {
            let message = match &record.entry {
                Entry::Durable { message: Some(message), .. }
                | Entry::Direct(message)
                | Entry::Fetched { message, .. } => message,
                Entry::Durable { message: None, .. }
                | Entry::Opened { .. }
                | Entry::Position { .. }
                | Entry::Resync { .. }
                | Entry::Adopted
                | Entry::Closed => continue,
            };
            let Some(sent_us) = sent_us.get(&message.id).filter(|_| seen.insert(message.id)) else { continue };
            let of = if meanwhile.contains(sent_us) { &mut within } else { &mut beside };
            of.saturating_record(record.at_us.saturating_sub(*sent_us));
        }
    }
    Ok((within, beside))
}

fn report(outcome: &Outcome) -> Report {
    let counts = &outcome.oracle.counts;
    let mut report = Report::new("resume herd");
    report.row("cut off / back", format!("{} / {}", outcome.connections, outcome.back));
    report.row("ms until back, p50 / p90 / p99 / p99.9 / the last", &outcome.back_ms);
    report.row("resumed / resyncs", format!("{} / {}", outcome.resumed, outcome.resyncs));
    report.row("refusals by reason", format!("{:?}", outcome.refusals));
    report.row("messages acknowledged / attempted", format!("{} / {}", counts.acked, counts.attempted));
    report.row("delivered / due", format!("{} / {}", counts.delivered, counts.due));
    report.row("delivery ms of those sent meanwhile, likewise", &outcome.delivery_ms_meanwhile);
    report.row("delivery ms of all others, likewise", &outcome.delivery_ms_otherwise);
    if let Some(HerdCost { cost, driver_cpu_seconds, store_load }) = &outcome.cost {
        report.cost(cost);
        report.row("CPU of the driver meanwhile, core-seconds", format!("{driver_cpu_seconds:.2}"));
        if let Some(load) = store_load {
            let (steady, herd) = (load.steady, load.herd);
            report.row("store, core-seconds a second before / meanwhile", format!("{steady:.2} / {herd:.2}"));
        }
    }
    outcome.oracle.judgement(&mut report);
    report
}
