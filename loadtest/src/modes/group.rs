//! One group of many online members: the time until the last of them has a message.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use shared::{ConversationId, UserId};
use tokio::task::JoinSet;

use super::{MeasureArgs, Quantiles, StoreArgs, link, micros, micros_histogram, with};
use crate::client::{OutgoingMessage, Recipient};
use crate::process::{CpuUse, CpuWatch};
use crate::report::{Progress, Report};
use crate::rest::Rest;
use crate::speech::{PeerEvent, Speech, content};
use crate::target::{Target, TargetArgs};
use crate::ws::{Reader, Writer};

/// Sends into one group and measures the last delivery of each message.
#[derive(Debug, Clone, Args)]
pub struct GroupArgs {
    /// The deployment.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Its REST interface, `http://host:port`, where the group is made.
    #[arg(long, value_name = "HTTP_URL", required_unless_present = "group", requires = "api_key")]
    pub http: Option<String>,
    /// The API key by which the group is made.
    #[arg(long, env = "API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// The group's name, for peers whose clients join on connecting; nothing is made then.
    #[arg(long, conflicts_with = "http")]
    pub group: Option<String>,
    /// How many members, all online.
    #[arg(long, default_value_t = 1000)]
    pub members: usize,
    /// How many messages.
    #[arg(long, default_value_t = 50)]
    pub messages: u64,
    /// The time between two messages, in milliseconds.
    #[arg(long, default_value_t = 300)]
    pub interval_ms: u64,
    /// How long a message is, in bytes.
    #[arg(long, default_value_t = 200)]
    pub content_bytes: usize,
    /// The store's cost.
    #[command(flatten)]
    pub store: StoreArgs,
    /// The processes to measure, and the output.
    #[command(flatten)]
    pub measure: MeasureArgs,
}

#[derive(Debug, Serialize)]
struct Outcome {
    members: usize,
    messages: u64,
    due: u64,
    delivered: u64,
    last_delivery_ms: Quantiles,
    each_delivery_ms: Quantiles,
    cpu_seconds: CpuUse,
    store_cpu_seconds: Option<f64>,
}

/// A message on its way: when it left, how many have it, and since when the last of them.
#[derive(Debug, Clone, Copy)]
struct Flight {
    left: Instant,
    delivered: u64,
    last: Instant,
}

struct Tally {
    flights: Vec<Flight>,
    each_us: hdrhistogram::Histogram<u64>,
}

type SharedTally = Arc<Mutex<Tally>>;

/// Runs the measurement; `false` when not everybody got everything.
///
/// # Errors
/// A group that can't be made, members that can't connect, a process under test that isn't there.
pub async fn group(args: &GroupArgs) -> Result<bool> {
    let target = Target::new(&args.target)?;
    let progress = Progress::new();
    let members: Vec<(UserId, String)> =
        (0..args.members.max(2)).map(|user| target.user(user)).collect::<Result<_>>()?;
    let ids: Vec<UserId> = members.iter().map(|(id, _)| id.clone()).collect();
    let name = format!("load-{:08x}", rand::random::<u32>());
    let conversation = match (&args.group, &args.http, &args.api_key) {
        (Some(group), _, _) => ConversationId::parse(group).context("--group is not an id")?,
        (None, Some(http), Some(key)) => Rest::new(std::slice::from_ref(http)).make_group(key, &name, &ids).await?,
        (None, _, _) => anyhow::bail!("--http and --api-key are needed, or --group"),
    };
    let speech = target.speech();

    let tally = Arc::new(Mutex::new(Tally { flights: Vec::new(), each_us: micros_histogram()? }));
    let mut readers = JoinSet::new();
    let opening = stream::iter(members.iter().enumerate())
        .map(|(number, (user, token))| link::open(&target, number, (user, token), args.group.as_deref()));
    let mut opening = opening.buffered(64);
    let mut writers = Vec::new();
    // Each is read from at once: thousands more may follow, and tell those who are there that they came.
    while let Some((reader, writer)) = opening.try_next().await.context("a member can't connect")? {
        let writer = Arc::new(writer);
        // The first one sends; with some peers it gets its own message as well, which is no delivery.
        let counts = (!writers.is_empty()).then(|| Arc::clone(&tally));
        writers.push(Arc::clone(&writer));
        readers.spawn(read(reader, writer, speech, counts));
    }
    let sender = writers.first().context("a group without members")?;
    // Effects of connecting (presence, for one) are not measured.
    tokio::time::sleep(Duration::from_secs(2)).await;

    let (cpu, store_cpu) = (CpuWatch::start(&args.measure.pids)?, args.store.cpu_seconds()?);
    let mut tick = tokio::time::interval(Duration::from_millis(args.interval_ms.max(1)));
    for number in 0..args.messages {
        tick.tick().await;
        let to = Recipient::Conversation(conversation.clone());
        let send =
            OutgoingMessage { temp_id: format!("{name}-{number}"), to, content: content(number, args.content_bytes) };
        let left = Instant::now();
        with(&tally, |tally| tally.flights.push(Flight { left, delivered: 0, last: left }));
        let (opcode, payload) = speech.send(Some(number), send);
        sender.send(opcode, &payload)?;
        progress.show(&format!("message {number} of {}", args.messages));
    }
    let recipients = writers.len() as u64 - 1;
    let due = recipients * args.messages;
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline && with(&tally, |tally| tally.each_us.len()) < due {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (cpu_seconds, store_now) = (cpu.read(), args.store.cpu_seconds()?);
    let store_cpu = store_now.zip(store_cpu).map(|(now, before)| now - before);
    progress.clear();
    readers.shutdown().await;
    let outcome = with(&tally, |tally| tally.outcome((writers.len(), due, recipients), (cpu_seconds, store_cpu)))?;
    report(&outcome).show(&outcome, args.measure.json.as_deref())?;
    Ok(outcome.delivered == outcome.due)
}

/// A member that is gone shows as deliveries that are missing.
async fn read(reader: Reader, writer: Arc<Writer>, speech: Speech, tally: Option<SharedTally>) {
    let take = |heard| {
        if let (PeerEvent::Delivered(Some(number)), Some(tally)) = (heard, &tally) {
            with(tally, |tally| tally.take(number));
        }
    };
    link::listen(reader, &writer, |frame| link::hear(speech, frame, &writer, take)).await;
}

impl Tally {
    fn take(&mut self, number: u64) {
        let flight = usize::try_from(number).ok().and_then(|number| self.flights.get_mut(number));
        if let Some(flight) = flight {
            flight.last = Instant::now();
            flight.delivered += 1;
            self.each_us.saturating_record(micros(flight.last - flight.left));
        }
    }

    fn outcome(
        &self,
        (members, due, recipients): (usize, u64, u64),
        (cpu_seconds, store_cpu_seconds): (CpuUse, Option<f64>),
    ) -> Result<Outcome> {
        let mut last_us = micros_histogram()?;
        for flight in self.flights.iter().filter(|flight| flight.delivered == recipients) {
            last_us.saturating_record(micros(flight.last - flight.left));
        }
        Ok(Outcome {
            members,
            messages: self.flights.len() as u64,
            due,
            delivered: self.each_us.len(),
            last_delivery_ms: Quantiles::from(&last_us),
            each_delivery_ms: Quantiles::from(&self.each_us),
            cpu_seconds,
            store_cpu_seconds,
        })
    }
}

fn report(outcome: &Outcome) -> Report {
    let mut report = Report::new("group");
    report.row("members", outcome.members);
    report.row("messages", outcome.messages);
    report.row("delivered / due", format!("{} / {}", outcome.delivered, outcome.due));
    report.row("last delivery ms, p50 / p90 / p99 / p99.9 / max", &outcome.last_delivery_ms);
    report.row("each delivery ms, p50 / p90 / p99 / p99.9 / max", &outcome.each_delivery_ms);
    report.row("CPU, core-seconds", &outcome.cpu_seconds);
    if let Some(store) = outcome.store_cpu_seconds {
        report.row("the store's, likewise", format!("{store:.2}"));
    }
    report
}
