//! First messages: each goes to a user to whom nobody has written, at an open-loop rate that may be more than the
//! deployment can do. It tells how many were stored, how many were refused, and how soon either was said.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use hdrhistogram::Histogram;
use serde::Serialize;
use shared::UserId;
use tokio::task::JoinSet;

use super::schedule::{self, Schedule};
use super::{MeasureArgs, Quantiles, link, micros_histogram, with};
use crate::client::{OutgoingMessage, Recipient, wire};
use crate::process::{CpuUse, CpuWatch};
use crate::report::{Progress, Report};
use crate::speech::{self, content};
use crate::target::{Target, TargetArgs};
use crate::ws::{Opcode, Writer};

/// An answer within this many microseconds came in time.
const IN_TIME_US: u64 = 1_000_000;

/// Sends first messages to strangers at a fixed rate, whatever the deployment does.
#[derive(Debug, Clone, Args)]
pub struct StrangersArgs {
    /// The deployment.
    #[command(flatten)]
    pub target: TargetArgs,
    /// How many users send.
    #[arg(long, default_value_t = 200)]
    pub users: usize,
    /// First messages per second.
    #[arg(long, default_value_t = 1500.0, value_parser = schedule::rate)]
    pub rate: f64,
    /// For how long.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// How long to wait for answers in the end.
    #[arg(long, default_value_t = 10)]
    pub drain_seconds: u64,
    /// How long a message is, in bytes.
    #[arg(long, default_value_t = 200)]
    pub content_bytes: usize,
    /// Fails unless so many of a hundred messages are stored within a second; the others must be refused within one.
    #[arg(long, default_value_t = 0.0)]
    pub stored_percent_min: f64,
    /// The processes to measure, and the output.
    #[command(flatten)]
    pub measure: MeasureArgs,
}

#[derive(Debug, Serialize)]
struct Outcome {
    sent: u64,
    stored: u64,
    stored_in_time: u64,
    stored_per_second: f64,
    refused: u64,
    refused_in_time: u64,
    unanswered: u64,
    errors: BTreeMap<String, u64>,
    connections_lost: u64,
    stored_ms: Quantiles,
    refused_ms: Quantiles,
    cpu_seconds: CpuUse,
}

/// The answers so far.
struct Tally {
    schedule: Option<Schedule>,
    stored_us: Histogram<u64>,
    stored_in_time: u64,
    refused_us: Histogram<u64>,
    refused_in_time: u64,
    errors: BTreeMap<String, u64>,
    lost: u64,
    /// Numbers that were answered twice, which nothing may be.
    answers: HashMap<u64, u32>,
}

type SharedTally = Arc<Mutex<Tally>>;

/// Runs the measurement; `false` when a message stayed without an answer, a connection was lost, or too few were stored.
///
/// # Errors
/// Senders that can't connect, a process under test that isn't there.
#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 messages")]
pub async fn strangers(args: &StrangersArgs) -> Result<bool> {
    let target = Target::new(&args.target)?;
    target.only_parley()?;
    let run = format!("{:08x}", rand::random::<u32>());
    let tally = Arc::new(Mutex::new(Tally::new()?));
    let mut readers = JoinSet::new();
    let writers = connect(&target, args.users.max(1), &run, &tally, &mut readers).await?;
    let progress = Progress::new();

    let cpu = CpuWatch::start(&args.measure.pids)?;
    let schedule = Schedule::soon(args.rate);
    with(&tally, |tally| tally.schedule = Some(schedule));
    let sent = schedule.total(args.seconds);
    let mut senders = writers.iter().cycle();
    schedule
        .run(sent, |number| {
            let (Some(writer), Ok(to)) = (senders.next(), UserId::parse(&format!("stranger-{run}-{number}"))) else {
                return;
            };
            let to = Recipient::User(to);
            let send = OutgoingMessage {
                temp_id: format!("{run}-{number}"),
                to,
                content: content(number, args.content_bytes),
            };
            if let Err(error) = writer.send(Opcode::Text, send.frame().as_bytes()) {
                with(&tally, |tally| *tally.errors.entry(format!("send: {:?}", error.kind())).or_default() += 1);
            }
            if number.is_multiple_of(256) {
                let (stored, refused) = with(&tally, |tally| (tally.stored_us.len(), tally.refused_us.len()));
                progress.show(&format!("sent {number} of {sent}, stored {stored}, refused {refused}"));
            }
        })
        .await;
    let deadline = Instant::now() + Duration::from_secs(args.drain_seconds);
    while Instant::now() < deadline && with(&tally, |tally| tally.answered()) < sent {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let cpu_seconds = cpu.read();
    progress.clear();
    readers.shutdown().await;
    let outcome = with(&tally, |tally| Outcome {
        sent,
        stored: tally.stored_us.len(),
        stored_in_time: tally.stored_in_time,
        stored_per_second: tally.stored_us.len() as f64 / (args.seconds.max(1) as f64),
        refused: tally.refused_us.len(),
        refused_in_time: tally.refused_in_time,
        unanswered: sent.saturating_sub(tally.answered()),
        errors: tally.errors.clone(),
        connections_lost: tally.lost,
        stored_ms: Quantiles::from(&tally.stored_us),
        refused_ms: Quantiles::from(&tally.refused_us),
        cpu_seconds,
    });
    report(args, &outcome).show(&outcome, args.measure.json.as_deref())?;
    let stored_percent = outcome.stored_in_time as f64 * 100.0 / (sent.max(1) as f64);
    Ok(outcome.unanswered == 0 && outcome.connections_lost == 0 && stored_percent >= args.stored_percent_min)
}

async fn connect(
    target: &Target,
    users: usize,
    run: &str,
    tally: &SharedTally,
    readers: &mut JoinSet<()>,
) -> Result<Vec<Arc<Writer>>> {
    let opening = stream::iter(0..users).map(|number| async move {
        let (user, token) = target.user(number)?;
        link::open(target, number, (&user, &token), None).await.with_context(|| format!("user {number}"))
    });
    let opened: Vec<_> = opening.buffered(64).try_collect().await?;
    let read = |(reader, writer)| {
        let writer = Arc::new(writer);
        let (answers_pings, tally, run) = (Arc::clone(&writer), Arc::clone(tally), run.to_owned());
        readers.spawn(async move {
            let take = |frame: &[u8]| {
                with(&tally, |tally| tally.take(&run, frame));
                Ok(())
            };
            link::listen(reader, &answers_pings, take).await;
            with(&tally, |tally| tally.lost += 1);
        });
        writer
    };
    Ok(opened.into_iter().map(read).collect())
}

impl Tally {
    fn new() -> Result<Self> {
        Ok(Self {
            schedule: None,
            stored_us: micros_histogram()?,
            stored_in_time: 0,
            refused_us: micros_histogram()?,
            refused_in_time: 0,
            errors: BTreeMap::new(),
            lost: 0,
            answers: HashMap::new(),
        })
    }

    fn answered(&self) -> u64 {
        self.stored_us.len() + self.refused_us.len()
    }

    fn take(&mut self, run: &str, frame: &[u8]) {
        match speech::kind(frame) {
            "message.sent" => self.note(speech::message_number(frame), true),
            "error" => {
                *self.errors.entry(wire::error_code(frame).unwrap_or_default()).or_default() += 1;
                let number = speech::reference(frame).strip_prefix(run).and_then(|rest| rest.strip_prefix('-'));
                self.note(number.and_then(|number| number.parse().ok()), false);
            }
            _ => {}
        }
    }

    fn note(&mut self, number: Option<u64>, stored: bool) {
        let (Some(number), Some(schedule)) = (number, self.schedule) else { return };
        let answers = self.answers.entry(number).or_default();
        *answers += 1;
        if *answers > 1 {
            *self.errors.entry("answered twice".into()).or_default() += 1;
            return;
        }
        let after_us = schedule.since_us(number);
        let in_time = u64::from(after_us <= IN_TIME_US);
        if stored {
            self.stored_us.saturating_record(after_us);
            self.stored_in_time += in_time;
        } else {
            self.refused_us.saturating_record(after_us);
            self.refused_in_time += in_time;
        }
    }
}

fn report(args: &StrangersArgs, outcome: &Outcome) -> Report {
    let mut report = Report::new("first messages to strangers");
    report.row("rate asked for, per second", args.rate);
    report.row("sent", outcome.sent);
    report.row("stored / within a second", format!("{} / {}", outcome.stored, outcome.stored_in_time));
    report.row("stored per second", format!("{:.0}", outcome.stored_per_second));
    report.row("refused / within a second", format!("{} / {}", outcome.refused, outcome.refused_in_time));
    report.row("without an answer", outcome.unanswered);
    report.row("stored ms, p50 / p90 / p99 / p99.9 / max", &outcome.stored_ms);
    report.row("refused ms, p50 / p90 / p99 / p99.9 / max", &outcome.refused_ms);
    report.row("CPU, core-seconds", &outcome.cpu_seconds);
    report.row("errors", format!("{:?}", outcome.errors));
    report.row("connections lost", outcome.connections_lost);
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_has_one_answer_and_a_second_one_is_told() {
        let mut tally = Tally::new().expect("a histogram");
        tally.schedule = Some(Schedule::soon(1000.0));
        tally.take(
            "r",
            br#"{"type":"error","ref":"r-7","payload":{"code":"UNAVAILABLE","message":"x","retryable":true}}"#,
        );
        tally.take(
            "r",
            br#"{"type":"error","ref":"other-8","payload":{"code":"UNAVAILABLE","message":"x","retryable":true}}"#,
        );
        assert_eq!((tally.answered(), tally.refused_in_time), (1, 1));
        tally.take(
            "r",
            br#"{"type":"error","ref":"r-7","payload":{"code":"UNAVAILABLE","message":"x","retryable":true}}"#,
        );
        assert_eq!((tally.answered(), tally.errors.get("answered twice")), (1, Some(&1)));
    }
}
