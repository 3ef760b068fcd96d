//! The link to Redis as the rest sees it: either there, with a connection for commands, or away, and then every use of it
//! is an error at once. Nothing waits here for Redis to come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use metrics::{Counter, Histogram};
use parking_lot::{Mutex, RwLock};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, ServerErrorKind, Value};
use shared::Timestamp;
use tokio_util::sync::CancellationToken;

use super::scripts::Scripts;
use crate::backbone::{BackboneError, Health, Settings};
use crate::off;

/// How long a probe that came back counts.
const PROBE_VALID: Duration = Duration::from_secs(3);

/// How far Redis' clock may be from this machine's, in milliseconds.
const CLOCK_APART_MS_MAX: i64 = 5_000;

/// How long after a change of server an append opens a log where none is (NOLOSS M2).
const SERVER_NEW: Duration = Duration::from_secs(60);

/// How long after a change of server nobody is declared offline: their nodes are coming back, too.
const SERVER_UNSETTLED: Duration = Duration::from_secs(10);

/// What all tasks share.
pub(super) struct Link {
    pub(super) settings: Settings,
    pub(super) scripts: Scripts,
    /// Written by the supervisor alone.
    state: RwLock<State>,
    /// Redis' clock less this machine's, in milliseconds.
    clock_apart_ms: AtomicI64,
    /// Written by the subscribing connection.
    probed: Mutex<Option<Instant>>,
    /// When the probe under way was published.
    probe_sent: Mutex<Option<Instant>>,
    lag_seconds: Histogram,
    reconnects: Counter,
    server: Mutex<ServerHistory>,
    epochs: AtomicU64,
    /// Cancelled when the link is there for the first time.
    connected: CancellationToken,
}

enum State {
    Up(Live),
    Away(String),
}

/// A connection that works, as far as is known.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) commands: MultiplexedConnection,
    /// The connection's id in `CLIENT LIST`.
    pub(super) client_id: i64,
    /// The server's replication id.
    pub(super) server: Arc<str>,
    /// Connections to the same server for what isn't hot.
    pub(super) pool: deadpool_redis::Pool,
    /// Cancelled when the connection is given up.
    pub(super) lost: CancellationToken,
}

#[derive(Default)]
struct ServerHistory {
    last: Option<Arc<str>>,
    changed: Option<Instant>,
}

impl Link {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            scripts: Scripts::new(&settings),
            settings,
            state: RwLock::new(State::Away("not connected yet".to_owned())),
            clock_apart_ms: AtomicI64::new(0),
            probed: Mutex::new(None),
            probe_sent: Mutex::new(None),
            lag_seconds: metrics::histogram!("parley_backbone_lag_seconds"),
            reconnects: metrics::counter!("parley_backbone_reconnects_total"),
            server: Mutex::new(ServerHistory::default()),
            epochs: AtomicU64::new(0),
            connected: CancellationToken::new(),
        }
    }

    /// The connection, if Redis is there.
    pub(super) fn live(&self) -> Result<Live, BackboneError> {
        match &*self.state.read() {
            State::Up(live) => Ok(live.clone()),
            State::Away(why) => Err(BackboneError(format!("Redis is away: {why}"))),
        }
    }

    /// Waits until the link was there once.
    pub(super) async fn first_connection(&self) {
        self.connected.cancelled().await;
    }

    /// Runs one command that isn't a script.
    pub(super) async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, BackboneError> {
        let mut live = self.live()?;
        tokio::select! {
            reply = command.query_async(&mut live.commands) => reply.map_err(failed),
            () = live.lost.cancelled() => Err(lost()),
        }
    }

    /// Runs one script; loaded anew if Redis doesn't know it.
    pub(super) async fn run_script<T: FromRedisValue>(&self, call: &Cmd) -> Result<T, BackboneError> {
        let mut live = self.live()?;
        let attempt = async {
            match call.query_async(&mut live.commands).await {
                Err(error) if is_noscript(&error) => {
                    self.scripts.load(&mut live.commands).await?;
                    call.query_async(&mut live.commands).await
                }
                reply => reply,
            }
        };
        tokio::select! {
            reply = attempt => reply.map_err(failed),
            () = live.lost.cancelled() => Err(lost()),
        }
    }

    /// Runs a pipeline; errors of single commands stand among the replies.
    pub(super) async fn run_pipeline(&self, pipeline: &Pipeline) -> Result<Vec<Value>, BackboneError> {
        if pipeline.is_empty() {
            return Ok(Vec::new());
        }
        let mut live = self.live()?;
        tokio::select! {
            replies = live.commands.send_packed_commands(pipeline, 0, pipeline.len()) => replies.map_err(failed),
            () = live.lost.cancelled() => Err(lost()),
        }
    }

    /// Loads the scripts again, after a `SCRIPT FLUSH`.
    pub(super) async fn load_scripts(&self) -> Result<(), BackboneError> {
        let mut live = self.live()?;
        tokio::select! {
            done = self.scripts.load(&mut live.commands) => done.map_err(failed),
            () = live.lost.cancelled() => Err(lost()),
        }
    }

    /// The random part of an epoch that may have to be made: never the same twice, on any node.
    pub(super) fn epoch_nonce(&self) -> String {
        let count = self.epochs.fetch_add(1, Ordering::Relaxed);
        format!("{:x}{count:x}", rand::random::<u32>() | 0x8000_0000)
    }

    /// Redis' clock, in unix milliseconds.
    pub(super) fn now_ms(&self) -> i64 {
        Timestamp::now().unix_ms().saturating_add(self.clock_apart_ms.load(Ordering::Relaxed))
    }

    pub(super) fn set_clock(&self, server_unix_ms: i64) {
        self.clock_apart_ms.store(server_unix_ms.saturating_sub(Timestamp::now().unix_ms()), Ordering::Relaxed);
    }

    pub(super) fn probe_begins(&self) {
        *self.probe_sent.lock() = Some(Instant::now());
    }

    pub(super) fn probe_returned(&self) {
        *self.probed.lock() = Some(Instant::now());
        if let Some(sent) = self.probe_sent.lock().take() {
            self.lag_seconds.record(sent.elapsed());
        }
    }

    /// The link is there. Called by the supervisor.
    pub(super) fn set_up(&self, live: Live) {
        let mut history = self.server.lock();
        if history.last.as_ref().is_some_and(|last| *last != live.server) {
            history.changed = Some(Instant::now());
        }
        self.reconnects.increment(u64::from(history.last.is_some()));
        history.last = Some(live.server.clone());
        drop(history);
        *self.probed.lock() = None;
        *self.state.write() = State::Up(live);
        self.connected.cancel();
    }

    /// The link is gone. Called by the supervisor.
    pub(super) fn set_away(&self, why: &str) {
        let before = std::mem::replace(&mut *self.state.write(), State::Away(why.to_owned()));
        if let State::Up(live) = before {
            live.lost.cancel();
        }
    }

    /// Gives up the connection; the supervisor makes another.
    pub(super) fn leave(&self) {
        if let State::Up(live) = &*self.state.read() {
            live.lost.cancel();
        }
    }

    /// The server that was there last.
    pub(super) fn last_server(&self) -> Option<Arc<str>> {
        self.server.lock().last.clone()
    }

    pub(super) fn server_is_new(&self) {
        self.server.lock().changed = Some(Instant::now());
    }

    /// Whether appends open logs everywhere (NOLOSS M2).
    pub(super) fn must_open_logs(&self) -> bool {
        !off::is("open-logs") && self.server.lock().changed.is_some_and(|at| at.elapsed() < SERVER_NEW)
    }

    /// Whether other nodes may not have come back yet after a change of server.
    pub(super) fn is_unsettled(&self) -> bool {
        self.server.lock().changed.is_some_and(|at| at.elapsed() < SERVER_UNSETTLED)
    }

    pub(super) fn health(&self) -> Health {
        let (server, away) = match &*self.state.read() {
            State::Up(live) => (Some(live.server.clone()), None),
            State::Away(why) => (None, Some(format!("Redis is away: {why}"))),
        };
        let apart_ms = self.clock_apart_ms.load(Ordering::Relaxed);
        let probed = self.probed.lock().is_some_and(|at| at.elapsed() < PROBE_VALID);
        let fault = match away {
            Some(away) => Some(away),
            None if apart_ms.abs() > CLOCK_APART_MS_MAX => Some(format!("Redis' clock is {apart_ms} ms from ours")),
            None if !probed => Some("no probe has come back within 3 s".to_owned()),
            None => None,
        };
        Health { ready: fault.is_none(), detail: fault.unwrap_or_else(|| "ready".to_owned()), server }
    }
}

/// What a caller is told of an error. Redis' messages hold no user input but command and key names.
pub(super) fn failed(error: RedisError) -> BackboneError {
    BackboneError(error.to_string())
}

/// What a caller is told when the link is given up meanwhile.
pub(super) fn lost() -> BackboneError {
    BackboneError("the connection to Redis was lost".to_owned())
}

fn is_noscript(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}
