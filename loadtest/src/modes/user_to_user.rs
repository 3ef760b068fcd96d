//! Messages from user to user at an open-loop rate: latency from the due time, and CPU per message.
//!
//! With `--ephemeral` it sends messages that a deployment neither stores nor acknowledges: a publication at NATS,
//! `typing` at Parley, the only such message that a client of Parley can send.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use hdrhistogram::Histogram;
use rand::seq::SliceRandom;
use serde::Serialize;
use shared::{ConversationId, UserId};
use tokio::task::JoinSet;

use super::opening::open_directs;
use super::schedule::{self, Schedule};
use super::typing::{self, PartnerTyping};
use super::{MeasureArgs, Quantiles, StoreArgs, link, micros_histogram, with};
use crate::client::{OutgoingMessage, Recipient, wire};
use crate::process::{CpuUse, CpuWatch};
use crate::report::{Progress, Report};
use crate::speech::{ClientFrame, PeerEvent, Speech, content};
use crate::target::{Target, TargetArgs};
use crate::ws::{Reader, Writer};

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
    #[arg(long, default_value_t = 5000.0, value_parser = schedule::rate)]
    pub rate: f64,
    /// For how long.
    #[arg(long, default_value_t = 20)]
    pub seconds: u64,
    /// How long to wait for what is still on its way in the end.
    #[arg(long, default_value_t = 10)]
    pub drain_seconds: u64,
    /// How long a message is, in bytes; `typing` has no content.
    #[arg(long, default_value_t = 200)]
    pub content_bytes: usize,
    /// Sends what is kept nowhere and acknowledged to nobody: `typing` to Parley, a publication to NATS.
    #[arg(long)]
    pub ephemeral: bool,
    /// The store's cost.
    #[command(flatten)]
    pub store: StoreArgs,
    /// The processes to measure, and the output.
    #[command(flatten)]
    pub measure: MeasureArgs,
}

#[derive(Debug, Serialize)]
struct Outcome {
    sent: u64,
    acked: u64,
    delivered: u64,
    connections_lost: u64,
    /// Messages that were answered with an error.
    refused: u64,
    errors: BTreeMap<String, u64>,
    seconds: f64,
    delivered_per_second: f64,
    delivery_ms: Quantiles,
    ack_ms: Quantiles,
    refusal_ms: Quantiles,
    cpu_seconds: CpuUse,
    cpu_seconds_per_million: f64,
    store_cpu_seconds_per_million: Option<f64>,
}

/// The readers' findings.
struct Tally {
    schedule: Option<Schedule>,
    opened: u64,
    delivered: Histogram<u64>,
    acked: Histogram<u64>,
    refused: Histogram<u64>,
    last: Option<Instant>,
    lost: u64,
    errors: BTreeMap<String, u64>,
}

type SharedTally = Arc<Mutex<Tally>>;

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
    if args.ephemeral {
        anyhow::ensure!(
            matches!(speech, Speech::Parley | Speech::Nats),
            "--ephemeral: not supported for this deployment"
        );
    }
    let acknowledged = speech.acknowledges() && !args.ephemeral;
    let types = args.ephemeral && speech == Speech::Parley;
    let links = connect(&target, (users, types), &tally, &mut readers).await?;
    let progress = Progress::new();
    let openers = links.iter().step_by(2).map(|link| (&*link.writer, &link.partner));
    let opened = || with(&tally, |tally| (tally.opened, tally.errors.clone()));
    open_directs(speech, openers, args.rate, &progress, opened).await?;
    if types {
        typing::all_known(links.iter().map(|link| &*link.conversation)).await?;
    }

    let (cpu, store_cpu) = (CpuWatch::start(&args.measure.pids)?, args.store.cpu_seconds()?);
    let schedule = Schedule::soon(args.rate);
    with(&tally, |tally| tally.schedule = Some(schedule));
    let sent = send_all(args, speech, &links, schedule, &tally, &progress).await;
    let deadline = Instant::now() + Duration::from_secs(args.drain_seconds);
    while Instant::now() < deadline && with(&tally, |tally| tally.settled(acknowledged)) < sent {
        tokio::time::sleep(Duration::from_millis(20)).await;
        for link in &links {
            // A link that is gone has been counted by its reader.
            let _ = link.writer.flush();
        }
    }
    let (cpu_seconds, store_now) = (cpu.read(), args.store.cpu_seconds()?);
    let store_cpu = store_now.zip(store_cpu).map(|(now, before)| now - before);
    progress.clear();
    let outcome = with(&tally, |tally| {
        let seconds = tally.last.map_or(0.0, |last| last.saturating_duration_since(schedule.start()).as_secs_f64());
        let delivered = tally.delivered.len();
        let per_million = |cpu_seconds: f64| cpu_seconds * 1e6 / (delivered.max(1) as f64);
        Outcome {
            sent,
            acked: tally.acked.len(),
            delivered,
            connections_lost: tally.lost,
            refused: tally.refused.len(),
            errors: tally.errors.clone(),
            seconds,
            delivered_per_second: if seconds > 0.0 { delivered as f64 / seconds } else { 0.0 },
            delivery_ms: Quantiles::from(&tally.delivered),
            ack_ms: Quantiles::from(&tally.acked),
            refusal_ms: Quantiles::from(&tally.refused),
            cpu_seconds_per_million: per_million(cpu_seconds.total),
            store_cpu_seconds_per_million: store_cpu.map(per_million),
            cpu_seconds,
        }
    });
    readers.shutdown().await;
    report(args, &outcome).show(&outcome, args.measure.json.as_deref())?;
    Ok(outcome.delivered == outcome.sent && (outcome.acked == outcome.sent || !acknowledged))
}

struct Sender {
    writer: Arc<Writer>,
    partner: UserId,
    /// The two's, as soon as it is known; only `typing` needs it.
    conversation: Arc<OnceLock<ConversationId>>,
}

/// Connects the users; if they are to type, what they hear of that is counted as well.
async fn connect(
    target: &Target,
    (users, types): (usize, bool),
    tally: &SharedTally,
    readers: &mut JoinSet<()>,
) -> Result<Vec<Sender>> {
    let opening = stream::iter(0..users).map(|number| async move {
        let (user, token) = target.user(number)?;
        let (partner, _) = target.user(number ^ 1)?;
        let opened = link::open(target, number, (&user, &token), None).await;
        let (reader, writer) = opened.with_context(|| format!("user {number}"))?;
        anyhow::Ok((reader, Arc::new(writer), partner))
    });
    let opened: Vec<_> = opening.buffered(64).try_collect().await?;
    let take = |(number, (reader, writer, partner)): (usize, (Reader, Arc<Writer>, UserId))| {
        let conversation = Arc::<OnceLock<ConversationId>>::default();
        let typing = types.then(|| PartnerTyping::new(number ^ 1, users, Arc::clone(&conversation)));
        readers.spawn(read(reader, Arc::clone(&writer), target.speech(), typing, Arc::clone(tally)));
        Sender { writer, partner, conversation }
    };
    Ok(opened.into_iter().enumerate().map(take).collect())
}

async fn send_all(
    args: &UserToUserArgs,
    speech: Speech,
    links: &[Sender],
    schedule: Schedule,
    tally: &SharedTally,
    progress: &Progress,
) -> u64 {
    let total = schedule.total(args.seconds);
    let run: u32 = rand::random();
    // Nobody answers within a fifth of a millisecond: in order of number, two partners' messages would always be stored at
    // once, one on each node, and wait for each other's lock.
    let mut senders: Vec<&Sender> = links.iter().collect();
    senders.shuffle(&mut rand::rng());
    let mut senders = senders.into_iter().cycle().take(usize::try_from(total).unwrap_or(usize::MAX));
    schedule
        .run(total, |number| {
            let Some(link) = senders.next() else { return };
            let (opcode, payload) = match (args.ephemeral, link.conversation.get()) {
                (true, Some(conversation)) => typing::frame(conversation),
                (_, _) => link.message(speech, number, format!("{run:x}-{number}"), args.content_bytes),
            };
            if let Err(error) = link.writer.send(opcode, &payload) {
                with(tally, |tally| *tally.errors.entry(format!("send: {:?}", error.kind())).or_default() += 1);
            }
            if number.is_multiple_of(256) {
                let delivered = with(tally, |tally| tally.delivered.len());
                progress.show(&format!("sent {number} of {total}, delivered {delivered}"));
            }
        })
        .await;
    total
}

impl Sender {
    fn message(&self, speech: Speech, number: u64, temp_id: String, bytes: usize) -> ClientFrame {
        let to = Recipient::User(self.partner.clone());
        speech.send(Some(number), OutgoingMessage { temp_id, to, content: content(number, bytes) })
    }
}

async fn read(
    reader: Reader,
    writer: Arc<Writer>,
    speech: Speech,
    mut typing: Option<PartnerTyping>,
    tally: SharedTally,
) {
    let take = |heard| with(&tally, |tally| tally.take(heard));
    let hear = |frame: &[u8]| {
        if let Some(number) = refused_number(frame) {
            with(&tally, |tally| tally.refuse(number));
        }
        if let Some(number) = typing.as_mut().and_then(|typing| typing.hear(frame)) {
            take(PeerEvent::Delivered(Some(number)));
        }
        link::hear(speech, frame, &writer, take)
    };
    link::listen(reader, &writer, hear).await;
    with(&tally, |tally| tally.lost += 1);
}

/// The number of the message that an error refuses: the frame's `ref` is the message's `tempId`.
fn refused_number(frame: &[u8]) -> Option<u64> {
    if !frame.starts_with(br#"{"type":"error""#) {
        return None;
    }
    wire::parse(frame).ok()?.reference?.rsplit_once('-')?.1.parse().ok()
}

impl Tally {
    fn new() -> Result<Self> {
        Ok(Self {
            schedule: None,
            opened: 0,
            delivered: micros_histogram()?,
            acked: micros_histogram()?,
            refused: micros_histogram()?,
            last: None,
            lost: 0,
            errors: BTreeMap::new(),
        })
    }

    /// How many messages have come to their end.
    fn settled(&self, acknowledged: bool) -> u64 {
        let done = if acknowledged { self.delivered.len().min(self.acked.len()) } else { self.delivered.len() };
        done + self.refused.len()
    }

    fn refuse(&mut self, number: u64) {
        if let Some(schedule) = self.schedule {
            self.refused.saturating_record(schedule.since_us(number));
        }
    }

    fn take(&mut self, heard: PeerEvent) {
        let (of, number) = match heard {
            PeerEvent::Delivered(None) => return self.opened += 1,
            PeerEvent::Delivered(number) => (&mut self.delivered, number),
            PeerEvent::Acked(number) => (&mut self.acked, number),
            PeerEvent::Refused(code) => return *self.errors.entry(code).or_default() += 1,
            PeerEvent::Ready | PeerEvent::Answer(_) => return,
        };
        if let (Some(number), Some(schedule)) = (number, self.schedule) {
            of.saturating_record(schedule.since_us(number));
            self.last = Some(Instant::now());
        }
    }
}

fn report(args: &UserToUserArgs, outcome: &Outcome) -> Report {
    let mut report = Report::new("user to user");
    report.row("rate asked for, per second", args.rate);
    report.row("sent / acked / delivered", format!("{} / {} / {}", outcome.sent, outcome.acked, outcome.delivered));
    report.row("delivered per second, over the whole time", format!("{:.0}", outcome.delivered_per_second));
    report.row("delivery ms, p50 / p90 / p99 / p99.9 / max", &outcome.delivery_ms);
    report.row("ack ms, p50 / p90 / p99 / p99.9 / max", &outcome.ack_ms);
    if outcome.refused > 0 {
        report.row("refused", outcome.refused);
        report.row("refusal ms, p50 / p90 / p99 / p99.9 / max", &outcome.refusal_ms);
    }
    report.row("CPU, core-seconds", &outcome.cpu_seconds);
    report.row("CPU, core-seconds per million delivered", format!("{:.1}", outcome.cpu_seconds_per_million));
    if let Some(store) = outcome.store_cpu_seconds_per_million {
        report.row("the store's, likewise", format!("{store:.1}"));
    }
    report.row("errors", format!("{:?}", outcome.errors));
    report.row("connections lost", outcome.connections_lost);
    report
}
