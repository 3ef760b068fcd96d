//! The part of `idle` that holds connections: a process of its own, since descriptors and ports are limited per process
//! and address. It speaks with its parent in lines of JSON and lives until its standard input ends.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use futures_util::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};
use shared::UserId;
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;

use super::link::{self, OpenError};
use crate::speech::Speech;
use crate::sse::Stream;
use crate::target::{Target, TargetArgs};
use crate::ws::{Reader, Writer};

/// Holds connections for `idle`.
#[derive(Debug, Clone, Args)]
pub struct HoldArgs {
    /// The deployment.
    #[command(flatten)]
    pub target: TargetArgs,
    /// How many.
    #[arg(long)]
    pub connections: usize,
    /// They are streams of server-sent events, not sockets.
    #[arg(long)]
    pub by_stream: bool,
    /// The first user's number.
    #[arg(long, default_value_t = 0)]
    pub first: usize,
    /// How many handshakes at once.
    #[arg(long, default_value_t = 64)]
    pub in_flight: usize,
}

/// A holder's counts: it reports them once it is connected, and again at the end.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct HolderCounts {
    /// Connections that were authenticated.
    pub(super) connected: u64,
    /// Connections that failed, by reason.
    pub(super) failed: BTreeMap<String, u64>,
    /// Connections that ended since.
    pub(super) lost: u64,
    /// How long connecting took, in seconds.
    pub(super) seconds: f64,
}

enum Connection {
    Socket(Reader, Writer),
    Stream(Stream),
}

/// Connects, holds, and ends when standard input does.
///
/// # Errors
/// No tokens, or a parent that doesn't listen.
pub async fn hold(args: &HoldArgs) -> Result<bool> {
    let target = Target::new(&args.target)?;
    let tokens = (args.first..args.first + args.connections).map(|number| Ok((number, target.user(number)?)));
    let tokens = tokens.collect::<Result<Vec<_>>>()?;
    let begun = Instant::now();
    let lost = Arc::new(AtomicU64::new(0));
    let mut held = HolderCounts::default();
    let mut tasks = JoinSet::new();
    let mut opening = stream::iter(&tokens)
        .map(|(number, (user, token))| open(args, &target, *number, (user, token)))
        .buffer_unordered(args.in_flight.max(1));
    while let Some(opened) = opening.next().await {
        match opened {
            Ok(connection) => {
                held.connected += 1;
                tasks.spawn(keep(connection, target.speech(), Arc::clone(&lost)));
            }
            Err(error) => *held.failed.entry(error.label()).or_default() += 1,
        }
    }
    held.seconds = begun.elapsed().as_secs_f64();
    say(&held)?;
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    held.lost = lost.load(Ordering::Relaxed);
    say(&held)?;
    tasks.shutdown().await;
    Ok(true)
}

fn say(held: &HolderCounts) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{}", serde_json::to_string(held)?)?)
}

async fn open(
    args: &HoldArgs,
    target: &Target,
    number: usize,
    (user, token): (&UserId, &str),
) -> Result<Connection, OpenError> {
    if args.by_stream {
        return Ok(Connection::Stream(link::open_stream(target, number, token).await?));
    }
    let (reader, writer) = link::open(target, number, (user, token), None).await?;
    Ok(Connection::Socket(reader, writer))
}

/// Answers the peer until the connection ends.
async fn keep(connection: Connection, speech: Speech, lost: Arc<AtomicU64>) {
    match connection {
        Connection::Socket(reader, writer) => {
            link::listen(reader, &writer, |frame| link::hear(speech, frame, &writer, |_| {})).await;
        }
        Connection::Stream(stream) => link::listen_stream(stream, |_| {}).await,
    }
    lost.fetch_add(1, Ordering::Relaxed);
}
