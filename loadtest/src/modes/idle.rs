//! The memory that an idle, authenticated connection takes in the processes under test: a socket, and a stream of events.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::MeasureArgs;
use super::hold::HolderCounts;
use crate::process::{name, rss_kb};
use crate::report::{Progress, Report};
use crate::target::{Target, TargetArgs};

/// Connections that one process can hold with a usual limit of 20,000 descriptors.
const CONNECTIONS_PER_PROCESS: usize = 15_000;

/// Holds idle connections and measures what they cost.
#[derive(Debug, Clone, Args)]
pub struct IdleArgs {
    /// The deployment.
    #[command(flatten)]
    pub target: TargetArgs,
    /// How many.
    #[arg(long, default_value_t = 10_000)]
    pub connections: usize,
    /// How many streams of server-sent events beside them; memory is read before they come and again with them.
    #[arg(long, default_value_t = 0)]
    pub streams: usize,
    /// How many processes hold the sockets, and how many more the streams [default: one for each 15,000]. Towards a node on
    /// this machine each connects from a loopback address of its own.
    #[arg(long)]
    pub processes: Option<usize>,
    /// How many handshakes at once, in each process.
    #[arg(long, default_value_t = 64)]
    pub in_flight: usize,
    /// For how long they are held before memory is read.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// How long after the last close memory is read again.
    #[arg(long, default_value_t = 5)]
    pub after_seconds: u64,
    /// The processes to measure, and the output.
    #[command(flatten)]
    pub measure: MeasureArgs,
}

#[derive(Debug, Default, Serialize)]
struct Outcome {
    connected: u64,
    streams: u64,
    failed: BTreeMap<String, u64>,
    lost: u64,
    connect_seconds: f64,
    processes: Vec<Memory>,
    kb_per_connection: Option<f64>,
    kb_per_stream: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Memory {
    name: String,
    before_kb: u64,
    with_kb: u64,
    /// With the streams as well.
    with_streams_kb: u64,
    after_kb: u64,
}

/// Connections to hold.
#[derive(Debug, Clone, Copy)]
struct Load {
    /// Whether they are streams.
    streams: bool,
    /// The number of the first one's user.
    first: usize,
    count: usize,
}

struct Holder {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

/// Runs the measurement; `false` when a connection failed or was lost.
///
/// # Errors
/// A process under test that isn't there, or a holder that can't be started.
pub async fn idle(args: &IdleArgs) -> Result<bool> {
    if args.streams > 0 {
        Target::new(&args.target)?.only_parley()?;
    }
    let progress = Progress::new();
    let read = || args.measure.pids.iter().map(|pid| rss_kb(*pid)).collect::<Result<Vec<_>>>();
    let before = read()?;
    let mut outcome = Outcome::default();
    let mut holders = Vec::new();
    let connected = hold(args, Load { streams: false, first: 0, count: args.connections }, &mut outcome, &mut holders);
    outcome.connected = connected.await?;
    progress.show(&format!("holding {} for {} s", outcome.connected, args.seconds));
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    let with = read()?;
    let mut with_streams = with.clone();
    if args.streams > 0 {
        let load = Load { streams: true, first: args.connections, count: args.streams };
        outcome.streams = hold(args, load, &mut outcome, &mut holders).await?;
        progress.show(&format!("holding {} streams for {} s", outcome.streams, args.seconds));
        tokio::time::sleep(Duration::from_secs(args.seconds)).await;
        with_streams = read()?;
    }
    for holder in &mut holders {
        drop(holder.child.stdin.take());
        outcome.lost += holder.listen().await?.lost;
        holder.child.wait().await?;
    }
    tokio::time::sleep(Duration::from_secs(args.after_seconds)).await;
    let after = read()?;
    progress.clear();

    let pids = args.measure.pids.iter();
    for ((((pid, before_kb), with_kb), with_streams_kb), after_kb) in
        pids.zip(before).zip(with).zip(with_streams).zip(after)
    {
        outcome.processes.push(Memory { name: name(*pid), before_kb, with_kb, with_streams_kb, after_kb });
    }
    outcome.kb_per_connection =
        each(&outcome.processes, outcome.connected, |memory| (memory.before_kb, memory.with_kb));
    outcome.kb_per_stream =
        each(&outcome.processes, outcome.streams, |memory| (memory.with_kb, memory.with_streams_kb));
    report(&outcome).show(&outcome, args.measure.json.as_deref())?;
    Ok(outcome.failed.is_empty() && outcome.lost == 0)
}

/// The growth of all processes for each of so many connections, in KB.
#[expect(clippy::cast_precision_loss, reason = "memory is far below 2^52 KB")]
fn each(processes: &[Memory], connections: u64, of: impl Fn(&Memory) -> (u64, u64)) -> Option<f64> {
    let grown = processes.iter().map(of).map(|(before_kb, with_kb)| with_kb.saturating_sub(before_kb));
    let grown: u64 = grown.sum();
    (!processes.is_empty() && connections > 0).then(|| grown as f64 / connections as f64)
}

/// Starts the processes that hold these connections, and waits until they are there; returns how many are.
async fn hold(args: &IdleArgs, load: Load, outcome: &mut Outcome, holders: &mut Vec<Holder>) -> Result<u64> {
    let mut connected = 0;
    for mut holder in start(args, load)? {
        let held = holder.listen().await?;
        connected += held.connected;
        outcome.connect_seconds = outcome.connect_seconds.max(held.seconds);
        for (reason, times) in held.failed {
            *outcome.failed.entry(reason).or_default() += times;
        }
        holders.push(holder);
    }
    Ok(connected)
}

fn start(args: &IdleArgs, load: Load) -> Result<Vec<Holder>> {
    let processes = args.processes.unwrap_or_else(|| load.count.div_ceil(CONNECTIONS_PER_PROCESS)).max(1);
    let share = load.count.div_ceil(processes);
    let part = |number: usize| Load {
        first: load.first + number * share,
        count: share.min(load.count - number * share),
        ..load
    };
    // The processes with streams come behind those with sockets, each at an address of its own.
    let addresses_before = if load.streams { processes } else { 0 };
    (0..processes).map(|number| Holder::start(args, addresses_before + number, part(number))).collect()
}

impl Holder {
    fn start(args: &IdleArgs, number: usize, load: Load) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("hold");
        for (flag, value) in [("--connections", load.count), ("--first", load.first), ("--in-flight", args.in_flight)] {
            command.arg(flag).arg(value.to_string());
        }
        if load.streams {
            command.arg("--by-stream");
        }
        let target = &args.target;
        for url in &target.urls {
            command.arg("--url").arg(url);
        }
        if target.deflate {
            command.arg("--deflate");
        }
        for source in sources(target, number) {
            command.arg("--source").arg(source.to_string());
        }
        command
            .arg("--user-prefix")
            .arg(&target.user_prefix)
            .arg("--token-seconds")
            .arg(target.token_seconds.to_string());
        if let (Some(place), Some(speech)) = (target.token_in.to_possible_value(), target.speak.to_possible_value()) {
            command.arg("--token-in").arg(place.get_name()).arg("--speak").arg(speech.get_name());
        }
        // The secret goes by the environment: command lines can be read by everybody.
        match (&target.tokens, &target.jwt_secret) {
            (Some(file), _) => drop(command.arg("--tokens").arg(file).env_remove("JWT_SECRET")),
            (None, Some(secret)) => drop(command.env("JWT_SECRET", secret)),
            (None, None) => {}
        }
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("can't start a process that holds connections")?;
        let stdout = child.stdout.take().context("a holder without standard output")?;
        Ok(Self { child, lines: BufReader::new(stdout).lines() })
    }

    async fn listen(&mut self) -> Result<HolderCounts> {
        let line = self.lines.next_line().await?.context("a process that holds connections has ended")?;
        Ok(serde_json::from_str(&line)?)
    }
}

/// The addresses that holder `number` connects from: those asked for, else one of its own towards this machine.
fn sources(target: &TargetArgs, number: usize) -> Vec<IpAddr> {
    let loopback = target.urls.iter().all(|url| url.starts_with("ws://127."));
    match u8::try_from(number + 1) {
        Ok(last) if target.sources.is_empty() && loopback && number > 0 => vec![Ipv4Addr::new(127, 0, 0, last).into()],
        _ => target.sources.clone(),
    }
}

fn report(outcome: &Outcome) -> Report {
    let mut report = Report::new("idle connections");
    report.row("connected", outcome.connected);
    report.row("failed", format!("{:?}", outcome.failed));
    report.row("lost while held", outcome.lost);
    report.row("connecting took, s", format!("{:.2}", outcome.connect_seconds));
    for Memory { name, before_kb, with_kb, with_streams_kb, after_kb } in &outcome.processes {
        let kb = format!("{before_kb} / {with_kb} / {with_streams_kb} / {after_kb}");
        report.row(format!("{name}: RSS before / with / with streams / after, KB"), kb);
    }
    if let Some(kb) = outcome.kb_per_connection {
        report.row("KB per connection", format!("{kb:.2}"));
    }
    if let Some(kb) = outcome.kb_per_stream {
        report.row("streams", outcome.streams);
        report.row("KB per stream", format!("{kb:.2}"));
    }
    report
}
