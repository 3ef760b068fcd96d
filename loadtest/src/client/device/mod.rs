//! One device of one user: a task that keeps a connection through every fault and writes down what it sees.

mod sending;

use std::future::pending;
use std::io;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use shared::{ConversationId, UserId};

use super::fetch::{Fetch, FetchResult};
use super::gaps::GapTracker;
use super::journal;
use super::link::{Heard, Link, SOCKET_SILENCE, Transport};
use super::pending::PendingSends;
use super::posts::Posts;
use super::reconnect::{Backoff, ReconnectAction, after_close, after_refusal};
use super::session::{Session, Step};
use super::setup::{DeviceSetup, Order};
use super::wire::{self, Body, ServerFrame};
use crate::oracle::{Entry, FetchReason, Sighting};
use crate::seed::Actor;
use crate::ws::ConnectError;

/// How often a device looks at its clocks.
const TICK: Duration = Duration::from_millis(250);
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
    posts: Posts,
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
    link: Link,
    authenticated: bool,
    heard: Instant,
    asked: bool,
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
            session: match setup.transport {
                Transport::Socket => Session::default(),
                Transport::Stream => Session::by_ids(),
            },
            gaps: GapTracker::default(),
            directory_version: 0,
            pending: PendingSends::default(),
            posts: Posts::new(setup.rest.clone(), setup.node),
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
        let resume = self.session.resume_from().map(ToString::to_string);
        let DeviceSetup { target, number, transport, .. } = &self.setup;
        let dial = match transport {
            Transport::Socket => target.dial(self.node, *number, &self.token, resume.as_deref()),
            Transport::Stream => target.dial_stream(self.node, *number, &self.token, resume.as_deref()),
        };
        Ok(Connection {
            link: Link::open(&dial, *transport).await?,
            authenticated: false,
            heard: Instant::now(),
            asked: false,
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
                answer = self.posts.next() => self.posted(answer),
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
            let Connection { link, fetch, .. } = connection;
            tokio::select! {
                heard = link.next(), if !stalled => {
                    connection.heard = Instant::now();
                    connection.asked = false;
                    match heard? {
                        Heard::Frame { text, id } => self.take(connection, &text, id.as_deref())?,
                        Heard::Alive => {}
                        Heard::StayAway(wait) => connection.wish = Some(wait),
                        Heard::Closed(code) => return Ok(End::Closed(code)),
                    }
                }
                order = self.setup.orders.recv(), if self.orders_open => match order {
                    Some(Order::Send(send)) => {
                        self.queue(send);
                        self.pump(connection)?;
                    }
                    Some(Order::Drop) => {
                        connection.link.reset_on_close()?;
                        return Ok(End::Moved);
                    }
                    Some(Order::Stall(time)) => connection.stalled_until = Some(Instant::now() + time),
                    None => self.orders_open = false,
                },
                answer = self.posts.next() => {
                    self.posted(answer);
                    self.pump(connection)?;
                }
                fetched = async { match fetch { Some(fetch) => fetch.await, None => pending().await } } => {
                    connection.fetch = None;
                    self.fetched(fetched);
                }
                _ = tick.tick() => {
                    if let Some(end) = self.tick(connection)? {
                        return Ok(end);
                    }
                }
            }
        }
    }

    /// The clocks: repeats, silence, the end of a stall, `goaway`, holes.
    fn tick(&mut self, connection: &mut Connection) -> io::Result<Option<End>> {
        let now = Instant::now();
        connection.link.flush()?;
        if let Some(until) = connection.stalled_until {
            if now < until {
                return Ok(None);
            }
            connection.stalled_until = None;
            connection.heard = now;
        }
        if connection.leave_at.is_some_and(|moment| now >= moment) {
            connection.link.leave();
            return Ok(Some(End::Moved));
        }
        let silent = now.duration_since(connection.heard);
        if silent >= connection.link.silence_max() {
            return Ok(Some(End::Broken));
        }
        if silent >= SOCKET_SILENCE && connection.authenticated && !std::mem::replace(&mut connection.asked, true) {
            connection.link.ask()?;
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

    fn take(&mut self, connection: &mut Connection, text: &[u8], id: Option<&str>) -> io::Result<()> {
        let Ok(frame) = wire::parse(text) else {
            self.setup.recorder.with(|log| log.malformed += 1);
            return Ok(());
        };
        let step = match &frame.body {
            Body::AuthSuccess(auth) if !connection.authenticated => {
                connection.authenticated = true;
                self.backoff.succeeded();
                // What was posted is answered there, whatever becomes of the stream.
                if self.setup.transport == Transport::Socket {
                    self.pending.reconnected(Instant::now());
                }
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
        self.check_id(&frame, id);
        if step == Step::Fetch {
            self.learn();
            let all = self.setup.directory.of(&self.id).into_iter().map(|(conversation, _)| conversation);
            connection.fetch = Some(self.fetch(FetchReason::Resync, all));
        } else if matches!(frame.body, Body::AuthSuccess(_)) && connection.fetch.is_none() && self.owes_counts() {
            connection.fetch = Some(self.fetch(FetchReason::Start, std::iter::empty()));
        }
        self.act(connection, &frame)
    }

    /// On a stream, `auth_success` and events with a `seq` bear the place behind them, and nothing else does.
    fn check_id(&self, frame: &ServerFrame, id: Option<&str>) {
        let place = match frame.body {
            Body::AuthSuccess(_) => self.session.socket(),
            Body::Position(_) | Body::Resync { .. } => None,
            Body::New(_)
            | Body::Sent { .. }
            | Body::AuthFailed
            | Body::Goaway { .. }
            | Body::Error { .. }
            | Body::Unread(_)
            | Body::Pong
            | Body::Other => frame.seq.and(self.session.socket()),
        };
        if self.setup.transport == Transport::Stream && id != place.map(ToString::to_string).as_deref() {
            self.setup.recorder.with(|log| log.malformed += 1);
        }
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
            // `EventSource` waits for the end of its stream, and for as long as the server says then.
            Body::Goaway { .. } if self.setup.transport == Transport::Stream => {}
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
                self.refused_send(temp_id, code, *retryable, *retry_after_ms);
                return self.pump(connection);
            }
            Body::AuthFailed | Body::Position(_) | Body::Resync { .. } | Body::Unread(_) | Body::Pong | Body::Other => {
            }
        }
        Ok(())
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
        if reason != FetchReason::Hole {
            self.setup.recorder.with(|log| log.unread.fetch_begins());
        }
        let (node, token, backoff) = (self.node, self.token.clone(), self.backoff.fork());
        let rest = self.setup.rest.clone();
        Box::pin(Fetch { reason, rest, node, token, wanted, backoff }.run())
    }

    /// Whether no fetch has brought yet what was unread before the first connection.
    fn owes_counts(&self) -> bool {
        self.setup.recorder.with(|log| !log.unread.is_fetched())
    }

    fn fetched(&mut self, fetched: FetchResult) {
        if let Some(unread) = fetched.unread {
            self.setup.recorder.with(|log| log.unread.fetched(unread));
        }
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
