//! Messages over one connection that never waits for an answer: how many a second are stored, in order.
//!
//! It keeps a number of messages outstanding that is above what a node carries out side by side. So neither the network
//! nor the driver is the limit, and nothing is refused for having waited.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;
use shared::UserId;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::opening::open_directs;
use super::{MeasureArgs, Quantiles, StoreArgs, link, micros, micros_histogram, with};
use crate::client::{OutgoingMessage, Recipient};
use crate::process::{CpuUse, CpuWatch};
use crate::report::{Progress, Report};
use crate::speech::{PeerEvent, Speech, content};
use crate::target::{Target, TargetArgs};
use crate::ws::{Reader, Writer};

/// Sends over one connection without waiting for answers, as fast as they are stored.
#[derive(Debug, Clone, Args)]
pub struct OneArgs {
    /// The deployment.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Into how many direct conversations, by turns. Nobody listens at their other ends.
    #[arg(long, default_value_t = 1)]
    pub conversations: usize,
    /// For how long.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// How many messages may be unanswered.
    #[arg(long, default_value_t = 128)]
    pub outstanding: u64,
    /// How long a message is, in bytes.
    #[arg(long, default_value_t = 200)]
    pub content_bytes: usize,
    /// How long to wait for the last answers.
    #[arg(long, default_value_t = 10)]
    pub drain_seconds: u64,
    /// The store's cost.
    #[command(flatten)]
    pub store: StoreArgs,
    /// The processes to measure, and the output.
    #[command(flatten)]
    pub measure: MeasureArgs,
}

#[derive(Debug, Serialize)]
struct Outcome {
    conversations: usize,
    sent: u64,
    acked: u64,
    /// Acknowledgements of one conversation's messages in another order than that of their sending.
    out_of_order: u64,
    errors: BTreeMap<String, u64>,
    seconds: f64,
    acked_per_second: f64,
    ack_ms: Quantiles,
    cpu_seconds: CpuUse,
    cpu_seconds_per_million: f64,
    store_cpu_seconds_per_million: Option<f64>,
}

/// The reader's findings.
struct Tally {
    opened: u64,
    /// When each message left, by its number.
    left: Vec<Instant>,
    /// The highest number that was acknowledged, by conversation.
    highest: Vec<Option<u64>>,
    acked: Histogram<u64>,
    out_of_order: u64,
    errors: BTreeMap<String, u64>,
    answered: u64,
    last: Option<Instant>,
}

type SharedTally = Arc<(Mutex<Tally>, Notify)>;

/// Runs the measurement; `false` when something was refused, lost, or out of order.
///
/// # Errors
/// A user that can't connect, direct conversations that can't be opened, a process under test that isn't there.
#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 messages")]
pub async fn one(args: &OneArgs) -> Result<bool> {
    let target = Target::new(&args.target)?;
    let (speech, progress) = (target.speech(), Progress::new());
    let (user, token) = target.user(0)?;
    let others: Vec<UserId> =
        (1..=args.conversations.max(1)).map(|other| Ok(target.user(other)?.0)).collect::<Result<_>>()?;
    let (reader, writer) = link::open(&target, 0, (&user, &token), None).await.context("the user can't connect")?;
    let writer = Arc::new(writer);
    let tally: SharedTally = Arc::new((Mutex::new(Tally::new(others.len())?), Notify::new()));
    let mut readers = JoinSet::new();
    readers.spawn(read(reader, Arc::clone(&writer), speech, Arc::clone(&tally)));
    let opened = || with(&tally.0, |tally| (tally.opened, tally.errors.clone()));
    open_directs(speech, others.iter().map(|other| (&*writer, other)), 500.0, &progress, opened).await?;

    let (cpu, store_cpu) = (CpuWatch::start(&args.measure.pids)?, args.store.cpu_seconds()?);
    let started = Instant::now();
    let sent = send_all(args, speech, &others, &writer, &tally).await?;
    let deadline = Instant::now() + Duration::from_secs(args.drain_seconds);
    while Instant::now() < deadline && with(&tally.0, |tally| tally.answered) < sent {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (cpu_seconds, store_now) = (cpu.read(), args.store.cpu_seconds()?);
    let store_cpu = store_now.zip(store_cpu).map(|(now, before)| now - before);
    readers.shutdown().await;
    let outcome = with(&tally.0, |tally| {
        let acked = tally.acked.len();
        let seconds = tally.last.map_or(0.0, |last| last.saturating_duration_since(started).as_secs_f64());
        let per_million = |cpu_seconds: f64| cpu_seconds * 1e6 / (acked.max(1) as f64);
        Outcome {
            conversations: others.len(),
            sent,
            acked,
            out_of_order: tally.out_of_order,
            errors: tally.errors.clone(),
            seconds,
            acked_per_second: if seconds > 0.0 { acked as f64 / seconds } else { 0.0 },
            ack_ms: Quantiles::from(&tally.acked),
            cpu_seconds_per_million: per_million(cpu_seconds.total),
            store_cpu_seconds_per_million: store_cpu.map(per_million),
            cpu_seconds,
        }
    });
    report(&outcome).show(&outcome, args.measure.json.as_deref())?;
    Ok(outcome.acked == outcome.sent && outcome.out_of_order == 0)
}

/// Sends until the time is up, as long as few enough are unanswered; how many it were.
async fn send_all(
    args: &OneArgs,
    speech: Speech,
    others: &[UserId],
    writer: &Writer,
    tally: &SharedTally,
) -> Result<u64> {
    let (run, until) = (rand::random::<u32>(), tokio::time::Instant::now() + Duration::from_secs(args.seconds));
    let mut to = others.iter().cycle();
    let mut sent = 0;
    while tokio::time::Instant::now() < until {
        let woken = tally.1.notified();
        if sent >= with(&tally.0, |tally| tally.answered) + args.outstanding.max(1) {
            // When the time is up, the loop ends.
            let _ = tokio::time::timeout_at(until, woken).await;
            continue;
        }
        let Some(other) = to.next() else { break };
        let send = OutgoingMessage {
            temp_id: format!("{run:x}-{sent}"),
            to: Recipient::User(other.clone()),
            content: content(sent, args.content_bytes),
        };
        let (opcode, payload) = speech.send(Some(sent), send);
        with(&tally.0, |tally| tally.left.push(Instant::now()));
        writer.send(opcode, &payload)?;
        sent += 1;
    }
    Ok(sent)
}

async fn read(reader: Reader, writer: Arc<Writer>, speech: Speech, tally: SharedTally) {
    let take = |heard| {
        with(&tally.0, |tally| tally.take(heard));
        tally.1.notify_one();
    };
    link::listen(reader, &writer, |frame| link::hear(speech, frame, &writer, take)).await;
    with(&tally.0, |tally| *tally.errors.entry("the connection was lost".into()).or_default() += 1);
}

impl Tally {
    fn new(conversations: usize) -> Result<Self> {
        Ok(Self {
            opened: 0,
            left: Vec::new(),
            highest: vec![None; conversations],
            acked: micros_histogram()?,
            out_of_order: 0,
            errors: BTreeMap::new(),
            answered: 0,
            last: None,
        })
    }

    fn take(&mut self, heard: PeerEvent) {
        match heard {
            PeerEvent::Acked(None) => self.opened += 1,
            PeerEvent::Acked(Some(number)) => self.acknowledge(number),
            PeerEvent::Refused(code) => {
                self.answered += 1;
                *self.errors.entry(code).or_default() += 1;
            }
            PeerEvent::Delivered(_) | PeerEvent::Ready | PeerEvent::Answer(_) => {}
        }
    }

    fn acknowledge(&mut self, number: u64) {
        let now = Instant::now();
        (self.answered, self.last) = (self.answered + 1, Some(now));
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        if let Some(left) = self.left.get(place) {
            self.acked.saturating_record(micros(now - *left));
        }
        let conversations = self.highest.len().max(1);
        if let Some(highest) = self.highest.get_mut(place % conversations) {
            self.out_of_order += u64::from(highest.is_some_and(|highest| highest > number));
            *highest = (*highest).max(Some(number));
        }
    }
}

fn report(outcome: &Outcome) -> Report {
    let mut report = Report::new("one connection that does not wait");
    report.row("conversations", outcome.conversations);
    report.row("sent / acked", format!("{} / {}", outcome.sent, outcome.acked));
    report.row("acked per second", format!("{:.0}", outcome.acked_per_second));
    report.row("acknowledged out of order", outcome.out_of_order);
    report.row("ack ms, p50 / p90 / p99 / p99.9 / max", &outcome.ack_ms);
    report.row("CPU, core-seconds", &outcome.cpu_seconds);
    report.row("CPU, core-seconds per million acked", format!("{:.1}", outcome.cpu_seconds_per_million));
    if let Some(store) = outcome.store_cpu_seconds_per_million {
        report.row("the store's, likewise", format!("{store:.1}"));
    }
    report.row("errors", format!("{:?}", outcome.errors));
    report
}
