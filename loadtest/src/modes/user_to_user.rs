//! Messages from user to user at an open-loop rate: latency from the intended moment of sending, and CPU per message.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use hdrhistogram::Histogram;
use serde::Serialize;
use shared::UserId;
use tokio::task::JoinSet;

use super::{Quantiles, link, micros_histogram};
use crate::client::{Send, SendTo};
use crate::process::{CpuUse, CpuWatch};
use crate::report::{Progress, Report};
use crate::speech::{Heard, Speech, content};
use crate::target::{Target, TargetArgs};
use crate::ws::{Incoming, Opcode, Reader, Writer};

/// Sends from user to user at a fixed rate, whatever the deployment does.
#[derive(Debug, Clone, Args)]
pub struct UserToUserArgs {
    /// The deployment.
    #[command(flatten)]
    pub target: TargetArgs,
    /// How many users; they talk in pairs.
    #[arg(long, default_value_t = 1000)]
    pub users: usize,
    /// Messages per second.
    #[arg(long, default_value_t = 5000.0)]
    pub rate: f64,
    /// For how long.
    #[arg(long, default_value_t = 20)]
    pub seconds: u64,
    /// How long to wait for what is still on its way in the end.
    #[arg(long, default_value_t = 10)]
    pub drain_seconds: u64,
    /// How long a message is, in bytes.
    #[arg(long, default_value_t = 200)]
    pub content_bytes: usize,
    /// A process under test; may be repeated.
    #[arg(long = "pid")]
    pub pids: Vec<u32>,
    /// Writes the result as JSON to this file, or to standard output instead of the table (-).
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Outcome {
    sent: u64,
    acked: u64,
    delivered: u64,
    connections_lost: u64,
    errors: BTreeMap<String, u64>,
    seconds: f64,
    delivered_per_second: f64,
    delivery_ms: Quantiles,
    ack_ms: Quantiles,
    cpu_seconds: CpuUse,
    cpu_seconds_per_million: f64,
}

/// When each message is meant to leave: number n at `start + n / rate`.
#[derive(Debug, Clone, Copy)]
struct Schedule {
    start: Instant,
    rate: f64,
}

impl Schedule {
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 messages")]
    fn moment(self, number: u64) -> Instant {
        self.start + Duration::from_secs_f64(number as f64 / self.rate)
    }
}

/// What the readers found.
struct Tally {
    schedule: Option<Schedule>,
    opened: u64,
    delivered: Histogram<u64>,
    acked: Histogram<u64>,
    last: Option<Instant>,
    lost: u64,
    errors: BTreeMap<String, u64>,
}

type Shared = Arc<Mutex<Tally>>;

/// Runs the measurement; `false` when not everything arrived.
///
/// # Errors
/// Users that can't connect, direct conversations that can't be opened, a process under test that isn't there.
#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 messages")]
pub async fn user_to_user(args: &UserToUserArgs) -> Result<bool> {
    let target = Target::new(&args.target)?;
    let users = (args.users.max(2) / 2) * 2;
    let tally = Arc::new(Mutex::new(Tally::new()?));
    let mut readers = JoinSet::new();
    let speech = target.speech();
    let links = connect(&target, users, &tally, &mut readers).await?;
    let progress = Progress::new();
    warm_up(args, speech, &links, &tally, &progress).await?;

    let cpu = CpuWatch::start(&args.pids)?;
    let schedule = Schedule { start: Instant::now() + Duration::from_millis(50), rate: args.rate };
    with(&tally, |tally| tally.schedule = Some(schedule));
    let sent = send_all(args, speech, &links, schedule, &tally, &progress).await;
    let deadline = Instant::now() + Duration::from_secs(args.drain_seconds);
    while Instant::now() < deadline && with(&tally, |tally| tally.settled(speech)) < sent {
        tokio::time::sleep(Duration::from_millis(20)).await;
        for link in &links {
            // A link that is gone has been counted by its reader.
            let _ = link.writer.flush();
        }
    }
    let cpu_seconds = cpu.read();
    progress.clear();
    let outcome = with(&tally, |tally| {
        let seconds = tally.last.map_or(0.0, |last| last.saturating_duration_since(schedule.start).as_secs_f64());
        let delivered = tally.delivered.len();
        Outcome {
            sent,
            acked: tally.acked.len(),
            delivered,
            connections_lost: tally.lost,
            errors: tally.errors.clone(),
            seconds,
            delivered_per_second: if seconds > 0.0 { delivered as f64 / seconds } else { 0.0 },
            delivery_ms: Quantiles::from(&tally.delivered),
            ack_ms: Quantiles::from(&tally.acked),
            cpu_seconds_per_million: cpu_seconds.total * 1e6 / (delivered.max(1) as f64),
            cpu_seconds,
        }
    });
    readers.shutdown().await;
    report(args, &outcome).show(&outcome, args.json.as_deref())?;
    Ok(outcome.delivered == outcome.sent && (outcome.acked == outcome.sent || !speech.acknowledges()))
}

struct Link {
    writer: Arc<Writer>,
    partner: UserId,
}

async fn connect(target: &Target, users: usize, tally: &Shared, readers: &mut JoinSet<()>) -> Result<Vec<Link>> {
    let opening = stream::iter(0..users).map(|number| async move {
        let (user, token) = target.user(number)?;
        let (partner, _) = target.user(number ^ 1)?;
        let opened = link::open(target, number, (&user, &token), None).await;
        let (reader, writer) = opened.with_context(|| format!("user {number}"))?;
        anyhow::Ok((reader, Arc::new(writer), partner))
    });
    let opened: Vec<_> = opening.buffered(64).try_collect().await?;
    let take = |(reader, writer, partner): (Reader, Arc<Writer>, UserId)| {
        readers.spawn(read(reader, Arc::clone(&writer), target.speech(), Arc::clone(tally)));
        Link { writer, partner }
    };
    Ok(opened.into_iter().map(take).collect())
}

/// Opens every direct conversation with one message, so that the measured ones find them open.
async fn warm_up(
    args: &UserToUserArgs,
    speech: Speech,
    links: &[Link],
    tally: &Shared,
    progress: &Progress,
) -> Result<()> {
    let pairs = links.len() as u64 / 2;
    let run: u32 = rand::random();
    let openers = links.iter().step_by(2).enumerate();
    for (number, link) in openers {
        let (opcode, payload) = speech.send(None, link.message(format!("open-{run:x}-{number}"), "hello".into()));
        link.writer.send(opcode, &payload)?;
        tokio::time::sleep(Duration::from_secs_f64(1.0 / args.rate.clamp(1.0, 2000.0))).await;
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let opened = with(tally, |tally| tally.opened);
        progress.show(&format!("{opened} of {pairs} conversations open"));
        if opened >= pairs {
            return Ok(());
        }
        let errors = with(tally, |tally| tally.errors.clone());
        anyhow::ensure!(
            Instant::now() < deadline,
            "{opened} of {pairs} conversations are open after 30 s; errors: {errors:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small positive numbers"
)]
async fn send_all(
    args: &UserToUserArgs,
    speech: Speech,
    links: &[Link],
    schedule: Schedule,
    tally: &Shared,
    progress: &Progress,
) -> u64 {
    let total = (args.rate * args.seconds as f64) as u64;
    let run: u32 = rand::random();
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    let mut sent = 0;
    while sent < total {
        tick.tick().await;
        while sent < total && schedule.moment(sent) <= Instant::now() {
            let Some(link) = links.get(sent as usize % links.len().max(1)) else { return sent };
            let message = link.message(format!("{run:x}-{sent}"), content(sent, args.content_bytes));
            let (opcode, payload) = speech.send(Some(sent), message);
            if let Err(error) = link.writer.send(opcode, &payload) {
                with(tally, |tally| *tally.errors.entry(format!("send: {:?}", error.kind())).or_default() += 1);
            }
            sent += 1;
        }
        if sent % 256 == 0 {
            let delivered = with(tally, |tally| tally.delivered.len());
            progress.show(&format!("sent {sent} of {total}, delivered {delivered}"));
        }
    }
    sent
}

impl Link {
    fn message(&self, temp_id: String, content: String) -> Send {
        Send { temp_id, to: SendTo::User(self.partner.clone()), content }
    }
}

async fn read(mut reader: Reader, writer: Arc<Writer>, speech: Speech, tally: Shared) {
    loop {
        match reader.next().await {
            Ok(Incoming::Text(text)) => {
                let mut answer = None;
                with(&tally, |tally| {
                    speech.hear(&text, |heard| match heard {
                        Heard::Answer(text) => answer = Some(text),
                        heard => tally.take(heard),
                    });
                });
                if answer.is_some_and(|answer| writer.send_text(answer).is_err()) {
                    return with(&tally, |tally| tally.lost += 1);
                }
            }
            Ok(Incoming::Ping(payload)) if writer.send(Opcode::Pong, &payload).is_ok() => {}
            Ok(Incoming::Pong) => {}
            Ok(Incoming::Ping(_) | Incoming::Close(_)) | Err(_) => return with(&tally, |tally| tally.lost += 1),
        }
    }
}

impl Tally {
    fn new() -> Result<Self> {
        Ok(Self {
            schedule: None,
            opened: 0,
            delivered: micros_histogram()?,
            acked: micros_histogram()?,
            last: None,
            lost: 0,
            errors: BTreeMap::new(),
        })
    }

    /// How many messages have come to their end.
    fn settled(&self, speech: Speech) -> u64 {
        if speech.acknowledges() { self.delivered.len().min(self.acked.len()) } else { self.delivered.len() }
    }

    fn take(&mut self, heard: Heard) {
        let (of, number) = match heard {
            Heard::Delivered(None) => return self.opened += 1,
            Heard::Delivered(number) => (&mut self.delivered, number),
            Heard::Acked(number) => (&mut self.acked, number),
            Heard::Refused(code) => return *self.errors.entry(code).or_default() += 1,
            Heard::Ready | Heard::Answer(_) => return,
        };
        if let (Some(number), Some(schedule)) = (number, self.schedule) {
            let now = Instant::now();
            let took = now.saturating_duration_since(schedule.moment(number));
            of.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
            self.last = Some(now);
        }
    }
}

fn with<T>(tally: &Shared, f: impl FnOnce(&mut Tally) -> T) -> T {
    f(&mut tally.lock().unwrap_or_else(PoisonError::into_inner))
}

fn report(args: &UserToUserArgs, outcome: &Outcome) -> Report {
    let mut report = Report::new("user to user");
    report.row("rate asked for, per second", args.rate);
    report.row("sent / acked / delivered", format!("{} / {} / {}", outcome.sent, outcome.acked, outcome.delivered));
    report.row("delivered per second, over the whole time", format!("{:.0}", outcome.delivered_per_second));
    report.row("delivery ms, p50 / p90 / p99 / p99.9 / max", &outcome.delivery_ms);
    report.row("ack ms, p50 / p90 / p99 / p99.9 / max", &outcome.ack_ms);
    report.row("CPU, core-seconds", &outcome.cpu_seconds);
    report.row("CPU, core-seconds per million delivered", format!("{:.1}", outcome.cpu_seconds_per_million));
    report.row("errors", format!("{:?}", outcome.errors));
    report.row("connections lost", outcome.connections_lost);
    report
}
