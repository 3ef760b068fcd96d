//! Users with partners come and go at an open-loop rate: the partners' latency, and the cost.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use hdrhistogram::Histogram;
use serde::Serialize;
use shared::UserId;
use tokio::task::JoinSet;

use super::guests::{Change, Guests, change};
use super::opening::open_directs;
use super::schedule::{self, Schedule};
use super::{MeasureArgs, Quantiles, link, micros_histogram, with};
use crate::process::{Cost, CostWatch};
use crate::report::{Progress, Report};
use crate::speech::{self, PeerEvent, Speech};
use crate::target::{Target, TargetArgs};
use crate::ws::{Reader, Writer};

/// How much longer than the grace a user stays away: gateways look for those who have gone once a second, and a departure
/// that was not told yet is never told once the user is back.
const AWAY_MARGIN: Duration = Duration::from_millis(2500);

/// Lets users come and go at a fixed rate and measures how late their partners learn of it.
#[derive(Debug, Clone, Args)]
pub struct PresenceArgs {
    /// The deployment.
    #[command(flatten)]
    pub target: TargetArgs,
    /// How many users come and go, each in turn.
    #[arg(long, default_value_t = 200)]
    pub users: usize,
    /// How many users stay and are told.
    #[arg(long, default_value_t = 20)]
    pub watchers: usize,
    /// How many of these each of those has a direct conversation with.
    #[arg(long, default_value_t = 5)]
    pub partners: usize,
    /// Arrivals and departures per second, together.
    #[arg(long, default_value_t = 20.0, value_parser = schedule::rate)]
    pub rate: f64,
    /// For how long.
    #[arg(long, default_value_t = 30)]
    pub seconds: u64,
    /// How long the deployment waits before it tells of a departure (OFFLINE_GRACE_SECONDS), in milliseconds:
    /// user.offline is due that long after it.
    #[arg(long, default_value_t = 5000)]
    pub grace_ms: u64,
    /// How long to wait for what is still due in the end.
    #[arg(long, default_value_t = 5)]
    pub drain_seconds: u64,
    /// The processes to measure, and the output.
    #[command(flatten)]
    pub measure: MeasureArgs,
}

#[derive(Debug, Serialize)]
struct Outcome {
    arrivals: u64,
    departures: u64,
    failed: BTreeMap<String, u64>,
    due: u64,
    told: u64,
    missing: u64,
    early: u64,
    repeated: u64,
    strays: u64,
    watchers_lost: u64,
    online_ms: Quantiles,
    offline_ms: Quantiles,
    #[serde(flatten)]
    cost: Cost,
    cpu_ms_per_change: f64,
}

/// The watchers' received events.
struct Tally {
    schedule: Option<Schedule>,
    grace_us: u64,
    opened: u64,
    errors: BTreeMap<String, u64>,
    /// By guest: their last change.
    changes: Vec<Option<u64>>,
    /// By guest and watcher: the last change that this one was told of.
    told: HashMap<(usize, usize), u64>,
    online: Histogram<u64>,
    offline: Histogram<u64>,
    early: u64,
    repeated: u64,
    strays: u64,
    lost: u64,
}

type SharedTally = Arc<Mutex<Tally>>;

/// Runs the measurement; `false` when a partner was not told, a user could not come, or a watcher was lost.
///
/// # Errors
/// A load that makes no sense, watchers that can't connect, conversations that can't be opened, a process under test that
/// isn't there.
#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 changes")]
pub async fn presence(args: &PresenceArgs) -> Result<bool> {
    let begun = Instant::now();
    let grace = Duration::from_millis(args.grace_ms);
    check(args, grace)?;
    let target = Arc::new(Target::new(&args.target)?);
    target.only_parley()?;
    let mut guests = Guests::new(&target, args.watchers..args.watchers + args.users)?;
    let tally = Arc::new(Mutex::new(Tally::new(args)?));
    let mut readers = JoinSet::new();
    let writers = watch(&target, args.watchers, &guests, &tally, &mut readers).await?;
    let progress = Progress::new();
    open(args, &guests, &writers, &tally, &progress).await?;
    // Guests of a run just before this one have to be known as gone, or their coming is no news.
    tokio::time::sleep_until((begun + grace + AWAY_MARGIN).into()).await;

    let mut cost = CostWatch::start(&args.measure.pids)?;
    let schedule = Schedule::soon(args.rate);
    let total = schedule.total(args.seconds);
    let failed = Arc::new(Mutex::new(BTreeMap::<String, u64>::new()));
    with(&tally, |tally| tally.schedule = Some(schedule));
    schedule
        .run(total, |number| {
            let change = change(number, args.users);
            with(&tally, |tally| tally.begin(number, change));
            let failed = Arc::clone(&failed);
            guests.act(change, move |opened| {
                if let Err(error) = opened {
                    with(&failed, |failed| *failed.entry(error.label()).or_default() += 1);
                }
            });
            cost.look();
            if number.is_multiple_of(16) {
                progress.show(&format!("{number} of {total} changes, {} told", with(&tally, |tally| tally.heard())));
            }
        })
        .await;
    let due = total * args.partners as u64;
    let deadline = Instant::now() + grace + Duration::from_secs(args.drain_seconds);
    while Instant::now() < deadline && with(&tally, |tally| tally.heard()) < due {
        tokio::time::sleep(Duration::from_millis(20)).await;
        cost.look();
    }
    let cost = cost.read();
    progress.clear();
    readers.shutdown().await;
    let arrivals = (0..total).filter(|number| change(*number, args.users).comes).count() as u64;
    let failed = with(&failed, |failed| failed.clone());
    let outcome = with(&tally, |tally| Outcome {
        arrivals,
        departures: total - arrivals,
        failed,
        due,
        told: tally.heard(),
        missing: due - tally.heard(),
        early: tally.early,
        repeated: tally.repeated,
        strays: tally.strays,
        watchers_lost: tally.lost,
        online_ms: Quantiles::from(&tally.online),
        offline_ms: Quantiles::from(&tally.offline),
        cpu_ms_per_change: cost.cpu_seconds.total * 1000.0 / (total.max(1) as f64),
        cost,
    });
    report(args, &outcome).show(&outcome, args.measure.json.as_deref())?;
    Ok(outcome.missing == 0 && outcome.failed.is_empty() && outcome.watchers_lost == 0)
}

#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 users")]
fn check(args: &PresenceArgs, grace: Duration) -> Result<()> {
    ensure!((1..=args.watchers).contains(&args.partners), "--partners is between 1 and --watchers");
    let away = Duration::from_secs_f64(args.users as f64 / args.rate);
    let enough = ((grace + AWAY_MARGIN).as_secs_f64() * args.rate).ceil();
    ensure!(
        away >= grace + AWAY_MARGIN,
        "users would be away for {:.1} s only, too short for user.offline: at this rate --users {enough} is enough",
        away.as_secs_f64()
    );
    Ok(())
}

/// Connects those who stay.
async fn watch(
    target: &Target,
    watchers: usize,
    guests: &Guests,
    tally: &SharedTally,
    readers: &mut JoinSet<()>,
) -> Result<Vec<Arc<Writer>>> {
    let numbers: Arc<HashMap<String, usize>> =
        Arc::new(guests.users().enumerate().map(|(number, user)| (user.as_str().to_owned(), number)).collect());
    let opening = stream::iter(0..watchers).map(|number| async move {
        let (user, token) = target.user(number)?;
        link::open(target, number, (&user, &token), None).await.with_context(|| format!("watcher {number}"))
    });
    let links: Vec<(Reader, Writer)> = opening.buffered(64).try_collect().await?;
    let take = |(watcher, (reader, writer)): (usize, (Reader, Writer))| {
        let writer = Arc::new(writer);
        readers.spawn(read(reader, Arc::clone(&writer), watcher, Arc::clone(&numbers), Arc::clone(tally)));
        writer
    };
    Ok(links.into_iter().enumerate().map(take).collect())
}

/// Opens the conversations that make partners: each guest's with the watchers that follow one another.
async fn open(
    args: &PresenceArgs,
    guests: &Guests,
    writers: &[Arc<Writer>],
    tally: &SharedTally,
    progress: &Progress,
) -> Result<()> {
    let partners = |(number, user)| (0..args.partners).map(move |partner| (number * args.partners + partner, user));
    let pairs: Vec<(&Writer, &UserId)> = guests
        .users()
        .enumerate()
        .flat_map(partners)
        .filter_map(|(place, user)| Some((&**writers.get(place % writers.len().max(1))?, user)))
        .collect();
    // Below what one connection may ask.
    #[expect(clippy::cast_precision_loss, reason = "few watchers")]
    let rate = 40.0 * args.watchers as f64;
    let opened = || with(tally, |tally| (tally.opened, tally.errors.clone()));
    open_directs(Speech::Parley, pairs.into_iter(), rate.min(500.0), progress, opened).await
}

async fn read(
    reader: Reader,
    writer: Arc<Writer>,
    watcher: usize,
    guests: Arc<HashMap<String, usize>>,
    tally: SharedTally,
) {
    let take = |frame: &[u8]| {
        let comes = match speech::kind(frame) {
            "user.online" => true,
            "user.offline" => false,
            _ => {
                return link::hear(Speech::Parley, frame, &writer, |heard| with(&tally, |tally| tally.take(heard)));
            }
        };
        if let Some(guest) = guests.get(speech::user_id(frame)) {
            with(&tally, |tally| tally.notice(watcher, Change { guest: *guest, comes }));
        }
        Ok(())
    };
    link::listen(reader, &writer, take).await;
    with(&tally, |tally| tally.lost += 1);
}

impl Tally {
    fn new(args: &PresenceArgs) -> Result<Self> {
        Ok(Self {
            schedule: None,
            grace_us: args.grace_ms * 1000,
            opened: 0,
            errors: BTreeMap::new(),
            changes: vec![None; args.users],
            told: HashMap::new(),
            online: micros_histogram()?,
            offline: micros_histogram()?,
            early: 0,
            repeated: 0,
            strays: 0,
            lost: 0,
        })
    }

    fn heard(&self) -> u64 {
        self.online.len() + self.offline.len()
    }

    fn begin(&mut self, number: u64, change: Change) {
        if let Some(last) = self.changes.get_mut(change.guest) {
            *last = Some(number);
        }
    }

    fn take(&mut self, heard: PeerEvent) {
        match heard {
            PeerEvent::Acked(_) => self.opened += 1,
            PeerEvent::Refused(code) => *self.errors.entry(code).or_default() += 1,
            PeerEvent::Ready | PeerEvent::Delivered(_) | PeerEvent::Answer(_) => {}
        }
    }

    /// A watcher is told of a guest. What doesn't fit the guest's last change came from before it.
    fn notice(&mut self, watcher: usize, seen: Change) {
        let Some(schedule) = self.schedule else { return };
        let Some(number) = self.changes.get(seen.guest).copied().flatten() else { return self.strays += 1 };
        if change(number, self.changes.len()) != seen {
            return self.strays += 1;
        }
        if self.told.insert((seen.guest, watcher), number) == Some(number) {
            return self.repeated += 1;
        }
        let since_us = schedule.since_us(number);
        if seen.comes {
            self.online.saturating_record(since_us);
        } else {
            self.early += u64::from(since_us < self.grace_us);
            self.offline.saturating_record(since_us.saturating_sub(self.grace_us));
        }
    }
}

fn report(args: &PresenceArgs, outcome: &Outcome) -> Report {
    let mut report = Report::new("presence");
    report.row("changes asked for, per second", args.rate);
    report.row("arrivals / departures", format!("{} / {}", outcome.arrivals, outcome.departures));
    report.row("arrivals failed", format!("{:?}", outcome.failed));
    report.row("told / due", format!("{} / {}", outcome.told, outcome.due));
    report.row("told twice / out of place", format!("{} / {}", outcome.repeated, outcome.strays));
    report.row("ms from coming to user.online, p50 / p90 / p99 / p99.9 / max", &outcome.online_ms);
    let name = format!("ms to user.offline, beyond the {} ms of grace, likewise", args.grace_ms);
    report.row(name, &outcome.offline_ms);
    report.row("watchers lost", outcome.watchers_lost);
    report.cost(&outcome.cost);
    report.row("CPU, core-milliseconds per change", format!("{:.2}", outcome.cpu_ms_per_change));
    if outcome.early > 0 {
        report
            .note(format!("{} times user.offline came before the grace was over: is --grace-ms right?", outcome.early));
    }
    report
}
