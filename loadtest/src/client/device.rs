//! One device of one user: a task that keeps a connection through every fault and writes down what it sees.

use std::future::pending;
use std::io;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use shared::{ConversationId, UserId};

use super::fetch::{Fetch, FetchResult};
use super::gaps::GapTracker;
use super::journal;
use super::pending::{OutgoingMessage, PendingSends};
use super::reconnect::{Backoff, ReconnectAction, after_close, after_refusal};
use super::session::{Session, Step};
use super::setup::{DeviceSetup, Order};
use super::wire::{self, Body, ServerFrame};
use crate::oracle::{Entry, FetchReason, Sighting};
use crate::rest::MessageView;
use crate::seed::Actor;
use crate::ws::{ConnectError, Incoming, Opcode, Reader, Writer, connect};

/// How often a device looks at its clocks.
const TICK: Duration = Duration::from_millis(250);
/// After this long without any frame a `ping` goes out; after twice as long the connection counts as dead.
const SILENCE: Duration = Duration::from_secs(5);
/// How long to wait for the server to close after `goaway`'s moment has come.
const GOAWAY_JITTER_MAX: Duration = Duration::from_secs(30);

/// A device over all its connections.
#[derive(Debug)]
pub struct Device {
    setup: DeviceSetup,
    id: UserId,
    token: String,
    node: usize,
    session: Session,
    gaps: GapTracker,
    directory_version: u64,
    pending: PendingSends,
    backoff: Backoff,
    orders_open: bool,
}

/// Why a connection is over.
enum End {
    /// A close frame came, with or without a code.
    Closed(Option<u16>),
    /// The socket broke, or was silent for too long.
    Broken,
    /// The driver or a `goaway` wanted another connection.
    Moved,
}

/// The state of one open connection.
struct Connection {
    reader: Reader,
    writer: Writer,
    authenticated: bool,
    heard: Instant,
    pinged: bool,
    stalled_until: Option<Instant>,
    leave_at: Option<Instant>,
    /// How long the server wants this client to stay away once it has closed.
    wish: Option<Duration>,
    fetch: Option<BoxFuture<'static, FetchResult>>,
}

impl Device {
    /// A device that isn't connected yet.
    ///
    /// # Errors
    /// No token for its user.
    pub fn new(setup: DeviceSetup) -> anyhow::Result<Self> {
        let (id, token) = setup.target.user(setup.user)?;
        Ok(Self {
            node: setup.node,
            id,
            token,
            session: Session::default(),
            gaps: GapTracker::default(),
            directory_version: 0,
            pending: PendingSends::default(),
            backoff: Backoff::new(setup.seed.generator(Actor::Device(setup.number))),
            orders_open: true,
            setup,
        })
    }

    /// The device's user.
    #[must_use]
    pub fn user(&self) -> &UserId {
        &self.id
    }

    /// Connects, and again after every end that allows it. Ends only when the server says stop; the owner aborts it.
    pub async fn run(mut self) {
        loop {
            let (next, wish) = match self.connect().await {
                Ok(connection) => self.live(connection).await,
                Err(error) => self.refused(&error),
            };
            let wait = match next {
                ReconnectAction::Stop => return self.setup.recorder.with(|log| log.stopped = true),
                ReconnectAction::BackOff => self.backoff.wait(wish),
                ReconnectAction::Resume => self.backoff.at_once(),
                ReconnectAction::NewToken => {
                    // A token file has no newer one; then the old one is tried again.
                    if let Ok((_, token)) = self.setup.target.user(self.setup.user) {
                        self.token = token;
                    }
                    self.backoff.wait(None)
                }
                ReconnectAction::WithoutPosition => {
                    self.session.position_lost();
                    self.backoff.wait(None)
                }
            };
            self.pause(wait).await;
        }
    }

    async fn connect(&mut self) -> Result<Connection, ConnectError> {
        let resume = self.session.resume_from().map(|place| format!("{}:{}", place.epoch, place.seq));
        let dial = self.setup.target.dial(self.node, self.setup.number, &self.token, resume.as_deref());
        let (reader, writer) = connect(dial.address, dial.source, &dial.path_and_query, &dial.headers, false).await?;
        Ok(Connection {
            reader,
            writer,
            authenticated: false,
            heard: Instant::now(),
            pinged: false,
            stalled_until: None,
            leave_at: None,
            wish: None,
            fetch: None,
        })
    }

    fn refused(&mut self, error: &ConnectError) -> (ReconnectAction, Option<Duration>) {
        self.node = self.node.wrapping_add(1);
        self.setup.recorder.failed(false, error.label());
        match error {
            ConnectError::Refused { status, retry_after } => (after_refusal(*status), *retry_after),
            ConnectError::Io(_) | ConnectError::BadAnswer | ConnectError::TimedOut => (ReconnectAction::BackOff, None),
        }
    }

    /// Waits between two connections; what is to be sent gathers meanwhile.
    async fn pause(&mut self, wait: Duration) {
        let until = tokio::time::Instant::now() + wait;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                order = self.setup.orders.recv(), if self.orders_open => match order {
                    Some(Order::Send(send)) => self.queue(send),
                    Some(Order::Drop | Order::Stall(_)) => {}
                    None => self.orders_open = false,
                },
            }
        }
    }

    /// Lives with one connection until it ends.
    async fn live(&mut self, mut connection: Connection) -> (ReconnectAction, Option<Duration>) {
        let end = self.serve(&mut connection).await.unwrap_or(End::Broken);
        let opened = self.session.socket().is_some();
        self.session.closed();
        let code = if let End::Closed(code) = end { code } else { None };
        self.setup.recorder.with(|log| *log.closes.entry(code.unwrap_or(0)).or_default() += 1);
        if opened {
            self.setup.recorder.record(Entry::Closed);
        } else if !matches!(end, End::Moved) {
            self.setup.recorder.failed(true, format!("close {}", code.unwrap_or(0)));
        }
        if !matches!(end, End::Moved) || connection.leave_at.is_some() {
            self.node = self.node.wrapping_add(1);
        }
        let next = match end {
            End::Closed(code) => after_close(code),
            End::Broken => ReconnectAction::BackOff,
            End::Moved => ReconnectAction::Resume,
        };
        (next, connection.wish)
    }

    async fn serve(&mut self, connection: &mut Connection) -> io::Result<End> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let stalled = connection.stalled_until.is_some();
            let Connection { reader, fetch, .. } = connection;
            tokio::select! {
                incoming = reader.next(), if !stalled => {
                    connection.heard = Instant::now();
                    connection.pinged = false;
                    match incoming? {
                        Incoming::Text(text) => self.take(connection, &text)?,
                        Incoming::Ping(payload) => connection.writer.send(Opcode::Pong, &payload)?,
                        Incoming::Pong => {}
                        Incoming::Close(close) => {
                            let _ = connection.writer.send(Opcode::Close, &close.code.unwrap_or(1000).to_be_bytes());
                            return Ok(End::Closed(close.code));
                        }
                    }
                }
                order = self.setup.orders.recv(), if self.orders_open => match order {
                    Some(Order::Send(send)) => {
                        self.queue(send);
                        self.pump(connection)?;
                    }
                    Some(Order::Drop) => {
                        connection.writer.reset_on_close()?;
                        return Ok(End::Moved);
                    }
                    Some(Order::Stall(time)) => connection.stalled_until = Some(Instant::now() + time),
                    None => self.orders_open = false,
                },
                fetched = async { match fetch { Some(fetch) => fetch.await, None => pending().await } } => {
                    connection.fetch = None;
                    self.fetched(&fetched);
                }
                _ = tick.tick() => {
                    if let Some(end) = self.tick(connection)? {
                        return Ok(end);
                    }
                }
            }
        }
    }

    fn queue(&mut self, send: OutgoingMessage) {
        self.pending.push(send);
        self.note_unsettled();
    }

    fn note_unsettled(&self) {
        let unsettled = self.pending.unsettled();
        self.setup.recorder.with(|log| log.unsettled = unsettled);
    }

    fn pump(&mut self, connection: &Connection) -> io::Result<()> {
        if connection.authenticated {
            for frame in self.pending.due(Instant::now()) {
                connection.writer.send_text(&frame)?;
            }
        }
        Ok(())
    }

    /// The clocks: repeats, silence, the end of a stall, `goaway`, holes.
    fn tick(&mut self, connection: &mut Connection) -> io::Result<Option<End>> {
        let now = Instant::now();
        connection.writer.flush()?;
        if let Some(until) = connection.stalled_until {
            if now < until {
                return Ok(None);
            }
            connection.stalled_until = None;
            connection.heard = now;
        }
        if connection.leave_at.is_some_and(|moment| now >= moment) {
            let _ = connection.writer.send(Opcode::Close, &1000_u16.to_be_bytes());
            return Ok(Some(End::Moved));
        }
        let silent = now.duration_since(connection.heard);
        if silent >= SILENCE * 2 {
            return Ok(Some(End::Broken));
        }
        if silent >= SILENCE && connection.authenticated && !std::mem::replace(&mut connection.pinged, true) {
            connection.writer.send_text(r#"{"type":"ping"}"#)?;
        }
        self.pump(connection)?;
        self.learn();
        if connection.fetch.is_none() && connection.authenticated && !self.session.is_resyncing() {
            let holes = self.gaps.overdue(now);
            if !holes.is_empty() {
                connection.fetch = Some(self.fetch(FetchReason::Hole, holes.into_iter()));
            }
        }
        Ok(None)
    }

    /// Learns from the directory which conversations this user has.
    fn learn(&mut self) {
        let version = self.setup.directory.version();
        if self.directory_version != version {
            self.directory_version = version;
            for (conversation, base_seq) in self.setup.directory.of(&self.id) {
                self.gaps.begin(&conversation, base_seq);
            }
        }
    }

    fn take(&mut self, connection: &mut Connection, text: &[u8]) -> io::Result<()> {
        let Ok(frame) = wire::parse(text) else {
            self.setup.recorder.with(|log| log.malformed += 1);
            return Ok(());
        };
        let step = match &frame.body {
            Body::AuthSuccess(auth) if !connection.authenticated => {
                connection.authenticated = true;
                self.backoff.succeeded();
                self.pending.reconnected(Instant::now());
                let place = wire::Place { epoch: auth.epoch.clone(), seq: auth.seq };
                let asked = self.session.resume_from().cloned();
                self.setup.recorder.record(Entry::Opened { asked, resumed: auth.resumed, place });
                self.session.opened(auth)
            }
            body => {
                journal::write_down(&self.setup.recorder, &frame);
                self.session.frame(frame.seq, body)
            }
        };
        if step == Step::Fetch {
            self.learn();
            let all = self.setup.directory.of(&self.id).into_iter().map(|(conversation, _)| conversation);
            connection.fetch = Some(self.fetch(FetchReason::Resync, all));
        }
        self.act(connection, &frame)
    }

    /// Does what a frame wants beyond its place in the log.
    fn act(&mut self, connection: &mut Connection, frame: &ServerFrame) -> io::Result<()> {
        match &frame.body {
            Body::New(message) => self.gaps.take(message, Instant::now()),
            Body::Sent { temp_id, message, duplicate } => {
                // The answer to a repeated send is no delivery: that one still has to come by the log or a fetch.
                if !duplicate || frame.seq.is_some() {
                    self.gaps.take(message, Instant::now());
                }
                self.acknowledge(temp_id.as_deref(), message, *duplicate);
                return self.pump(connection);
            }
            Body::AuthSuccess(_) => return self.pump(connection),
            Body::Goaway { reconnect_window_ms } => {
                let window = Duration::from_millis(*reconnect_window_ms).min(GOAWAY_JITTER_MAX);
                let moment = Instant::now() + self.backoff.within(window);
                connection.leave_at.get_or_insert(moment);
            }
            Body::Error { code, retryable, retry_after_ms } => {
                let Some(temp_id) = &frame.reference else {
                    // An answer to no command: the server is about to close, and says for how long.
                    connection.wish = retry_after_ms.map(Duration::from_millis);
                    return Ok(());
                };
                if *retryable {
                    let wait = self.backoff.at_least(Duration::from_millis(retry_after_ms.unwrap_or(500)));
                    self.pending.postpone(temp_id, Instant::now() + wait);
                } else if self.pending.settle(temp_id) {
                    self.setup.recorder.with(|log| *log.refused.entry(code.clone()).or_default() += 1);
                    self.note_unsettled();
                    return self.pump(connection);
                }
            }
            Body::AuthFailed | Body::Position(_) | Body::Resync { .. } | Body::Pong | Body::Other => {}
        }
        Ok(())
    }

    fn acknowledge(&mut self, temp_id: Option<&str>, message: &MessageView, duplicate: bool) {
        let Some(temp_id) = temp_id.or(message.temp_id.as_deref()) else { return };
        if duplicate {
            self.setup.recorder.duplicate(temp_id, Sighting::from(message));
        }
        // Every device of the user gets `message.sent`; only the one that sent it waits for it.
        if self.pending.settle(temp_id) {
            self.setup.recorder.acknowledged(temp_id, Sighting::from(message));
            self.note_unsettled();
        }
    }

    fn fetch(
        &mut self,
        reason: FetchReason,
        conversations: impl Iterator<Item = ConversationId>,
    ) -> BoxFuture<'static, FetchResult> {
        let marked = |conversation| {
            let (seq, rev) = self.gaps.marks(&conversation);
            (conversation, seq, rev)
        };
        let wanted = conversations.map(marked).collect();
        let (node, token, backoff) = (self.node, self.token.clone(), self.backoff.fork());
        let rest = self.setup.rest.clone();
        Box::pin(Fetch { reason, rest, node, token, wanted, backoff }.run())
    }

    fn fetched(&mut self, fetched: &FetchResult) {
        for message in &fetched.messages {
            self.gaps.take(message, Instant::now());
            self.setup.recorder.record(Entry::Fetched { reason: fetched.reason, message: Sighting::from(message) });
        }
        if fetched.reason == FetchReason::Resync {
            self.session.fetched();
            self.setup.recorder.record(Entry::Adopted);
        }
    }
}
