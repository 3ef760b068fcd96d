//! One server: connected, or away. While it is away every command fails at once; none waits here for Redis to come
//! back.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use metrics::{Counter, Histogram};
use parking_lot::{Mutex, RwLock};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult, ServerErrorKind, Value};
use shared::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::backbone::BackboneError;
use crate::backbone::redis::scripts::Scripts;

/// How long a probe that came back counts.
const PROBE_VALID: Duration = Duration::from_secs(3);

/// How far Redis' clock may be from this machine's, in milliseconds.
const CLOCK_APART_MS_MAX: i64 = 5_000;

/// A server, written by its supervisor and its subscribing connection alone.
pub(in crate::backbone::redis) struct Server {
    state: RwLock<State>,
    /// Redis' clock less this machine's, in milliseconds.
    clock_apart_ms: AtomicI64,
    /// Nodes that take its orders.
    nodes: AtomicU32,
    probed: Mutex<Option<Instant>>,
    /// When the probe under way was published.
    probe_sent: Mutex<Option<Instant>>,
    lag_seconds: Histogram,
    reconnects: Counter,
    history: Mutex<History>,
    /// Cancelled when the server is there for the first time.
    pub(in crate::backbone::redis) connected: CancellationToken,
}

enum State {
    Up(Live),
    Away { why: String, since: Instant },
}

/// A connection that works, as far as is known.
#[derive(Clone)]
pub(in crate::backbone::redis) struct Live {
    pub(in crate::backbone::redis) commands: MultiplexedConnection,
    /// The connection's id in `CLIENT LIST`.
    pub(in crate::backbone::redis) client_id: i64,
    /// The server's replication id.
    pub(in crate::backbone::redis) server: Arc<str>,
    /// Connections to the same server for what isn't hot.
    pub(in crate::backbone::redis) pool: deadpool_redis::Pool,
    /// When it came about.
    pub(in crate::backbone::redis) since: Instant,
    /// Cancelled when the connection is given up.
    pub(in crate::backbone::redis) lost: CancellationToken,
}

#[derive(Default)]
struct History {
    /// The replication id that was seen last.
    last: Option<Arc<str>>,
    changed: Option<Instant>,
}

/// Why a command has no reply.
pub(in crate::backbone::redis) enum Fault {
    /// Redis answered with an error.
    Refused(RedisError),
    /// There is no reply, so the command may have run; or the server is unavailable.
    Lost(BackboneError),
}

impl Server {
    pub(in crate::backbone::redis) fn new() -> Self {
        Self {
            state: RwLock::new(State::Away { why: "not connected yet".to_owned(), since: Instant::now() }),
            clock_apart_ms: AtomicI64::new(0),
            nodes: AtomicU32::new(0),
            probed: Mutex::new(None),
            probe_sent: Mutex::new(None),
            lag_seconds: metrics::histogram!("parley_backbone_lag_seconds"),
            reconnects: metrics::counter!("parley_backbone_reconnects_total"),
            history: Mutex::new(History::default()),
            connected: CancellationToken::new(),
        }
    }

    /// The connection, if Redis is there.
    pub(in crate::backbone::redis) fn live(&self) -> Result<Live, BackboneError> {
        match &*self.state.read() {
            State::Up(live) => Ok(live.clone()),
            State::Away { why, .. } => Err(BackboneError(format!("Redis is away: {why}"))),
        }
    }

    /// Since when it is away, if it is.
    pub(in crate::backbone::redis) fn away_since(&self) -> Option<Instant> {
        match &*self.state.read() {
            State::Up(_) => None,
            State::Away { since, .. } => Some(*since),
        }
    }

    /// Runs one command that isn't a script.
    pub(in crate::backbone::redis) async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Fault> {
        let Live { mut commands, lost, .. } = self.live().map_err(Fault::Lost)?;
        unless_lost(&lost, command.query_async(&mut commands)).await
    }

    /// Runs one script; loaded anew if Redis doesn't know it.
    pub(in crate::backbone::redis) async fn run_script<T: FromRedisValue>(
        &self,
        scripts: &Scripts,
        call: &Cmd,
    ) -> Result<T, Fault> {
        let Live { mut commands, lost, .. } = self.live().map_err(Fault::Lost)?;
        let attempt = async {
            match call.query_async(&mut commands).await {
                Err(error) if is_noscript(&error) => {
                    scripts.load(&mut commands).await?;
                    call.query_async(&mut commands).await
                }
                reply => reply,
            }
        };
        unless_lost(&lost, attempt).await
    }

    /// Runs a pipeline; errors of single commands stand among the replies.
    pub(in crate::backbone::redis) async fn run_pipeline(
        &self,
        pipeline: &Pipeline,
    ) -> Result<Vec<Value>, BackboneError> {
        let Live { mut commands, lost, .. } = self.live()?;
        unless_lost(&lost, commands.send_packed_commands(pipeline, 0, pipeline.len())).await.map_err(Fault::told)
    }

    /// Runs a command that isn't hot on a connection of the pool.
    pub(in crate::backbone::redis) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Fault> {
        let Live { pool, lost, .. } = self.live().map_err(Fault::Lost)?;
        let ask = async {
            let mut connection = pool.get().await.map_err(|error| Fault::Lost(BackboneError(error.to_string())))?;
            command.query_async(&mut connection).await.map_err(Fault::of)
        };
        tokio::select! {
            reply = ask => reply,
            () = lost.cancelled() => Err(Fault::Lost(gone())),
        }
    }

    /// Loads the scripts again, after a `SCRIPT FLUSH`.
    pub(in crate::backbone::redis) async fn load_scripts(&self, scripts: &Scripts) -> Result<(), BackboneError> {
        let Live { mut commands, lost, .. } = self.live()?;
        unless_lost(&lost, scripts.load(&mut commands)).await.map_err(Fault::told)
    }

    /// Redis' clock, in unix milliseconds.
    pub(in crate::backbone::redis) fn now_ms(&self) -> i64 {
        Timestamp::now().unix_ms().saturating_add(self.clock_apart_ms.load(Ordering::Relaxed))
    }

    pub(in crate::backbone::redis) fn set_clock(&self, server_unix_ms: i64) {
        self.clock_apart_ms.store(server_unix_ms.saturating_sub(Timestamp::now().unix_ms()), Ordering::Relaxed);
    }

    /// How many nodes are connected to it; 0 if that isn't known yet.
    pub(in crate::backbone::redis) fn nodes(&self) -> u32 {
        self.nodes.load(Ordering::Relaxed)
    }

    pub(in crate::backbone::redis) fn set_nodes(&self, nodes: u32) {
        self.nodes.store(nodes, Ordering::Relaxed);
    }

    pub(in crate::backbone::redis) fn probe_begins(&self) {
        *self.probe_sent.lock() = Some(Instant::now());
    }

    pub(in crate::backbone::redis) fn probe_returned(&self) {
        *self.probed.lock() = Some(Instant::now());
        if let Some(sent) = self.probe_sent.lock().take() {
            self.lag_seconds.record(sent.elapsed());
        }
    }

    /// It is there. Called by the supervisor. Whether it is another than the last time.
    pub(in crate::backbone::redis) fn set_up(&self, live: Live) -> bool {
        let mut history = self.history.lock();
        let is_another = history.last.as_ref().is_some_and(|last| *last != live.server);
        if is_another {
            history.changed = Some(Instant::now());
        }
        self.reconnects.increment(u64::from(history.last.is_some()));
        history.last = Some(live.server.clone());
        drop(history);
        *self.probed.lock() = None;
        *self.state.write() = State::Up(live);
        self.connected.cancel();
        is_another
    }

    /// It is gone. Called by the supervisor.
    pub(in crate::backbone::redis) fn set_away(&self, why: &str) {
        let mut state = self.state.write();
        let since = match &*state {
            State::Up(live) => {
                live.lost.cancel();
                Instant::now()
            }
            State::Away { since, .. } => *since,
        };
        *state = State::Away { why: why.to_owned(), since };
    }

    /// Gives up the connection; the supervisor makes another.
    pub(in crate::backbone::redis) fn leave(&self) {
        if let State::Up(live) = &*self.state.read() {
            live.lost.cancel();
        }
    }

    /// Whether its replication id changed within the last `time`.
    pub(in crate::backbone::redis) fn changed_within(&self, time: Duration) -> bool {
        self.history.lock().changed.is_some_and(|at| at.elapsed() < time)
    }

    /// Its replication id, if it is there.
    pub(in crate::backbone::redis) fn identity(&self) -> Option<Arc<str>> {
        match &*self.state.read() {
            State::Up(live) => Some(live.server.clone()),
            State::Away { .. } => None,
        }
    }

    /// The replication id that it had when it was there last.
    pub(in crate::backbone::redis) fn last_identity(&self) -> Option<Arc<str>> {
        self.history.lock().last.clone()
    }

    /// Why it carries no events, if it doesn't.
    pub(in crate::backbone::redis) fn fault(&self) -> Option<String> {
        if let State::Away { why, .. } = &*self.state.read() {
            return Some(format!("Redis is away: {why}"));
        }
        let apart_ms = self.clock_apart_ms.load(Ordering::Relaxed);
        if apart_ms.abs() > CLOCK_APART_MS_MAX {
            return Some(format!("Redis' clock is {apart_ms} ms from ours"));
        }
        let probed = self.probed.lock().is_some_and(|at| at.elapsed() < PROBE_VALID);
        (!probed).then(|| "no probe has come back within 3 s".to_owned())
    }
}

impl Fault {
    /// An error is the server's answer, or says that there is none.
    pub(in crate::backbone::redis) fn of(error: RedisError) -> Self {
        match error.kind() {
            ErrorKind::Server(_) | ErrorKind::Extension => Self::Refused(error),
            _ => Self::Lost(failed(error)),
        }
    }

    /// The caller's error.
    pub(in crate::backbone::redis) fn told(self) -> BackboneError {
        match self {
            Self::Refused(error) => failed(error),
            Self::Lost(fault) => fault,
        }
    }
}

async fn unless_lost<T>(lost: &CancellationToken, reply: impl Future<Output = RedisResult<T>>) -> Result<T, Fault> {
    tokio::select! {
        reply = reply => reply.map_err(Fault::of),
        () = lost.cancelled() => Err(Fault::Lost(gone())),
    }
}

/// The caller's error for an error of Redis. Redis' messages hold no user input but command and key names.
pub(in crate::backbone::redis) fn failed(error: RedisError) -> BackboneError {
    BackboneError(error.to_string())
}

/// The caller's error if the server is given up meanwhile.
fn gone() -> BackboneError {
    BackboneError("the connection to Redis was lost".to_owned())
}

fn is_noscript(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}
