//! One device of one user: a task that keeps a connection through every fault and writes down what it sees.

use std::future::pending;
use std::io;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use shared::UserId;

use super::fetch::{Fetch, Fetched};
use super::journal;
use super::outgoing::{Outgoing, Send};
use super::reconnect::{Backoff, Next, after_close, after_refusal};
use super::seen::Seen;
use super::session::{Session, Step};
use super::setup::{DeviceSetup, Order};
use super::wire::{self, Body, ServerFrame};
use crate::oracle::{Entry, FetchReason, Sighting};
use crate::rest::MessageView;
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
    seen: Seen,
    directory_version: u64,
    outgoing: Outgoing,
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
struct Link {
    reader: Reader,
    writer: Writer,
    authenticated: bool,
    heard: Instant,
    pinged: bool,
    stalled_until: Option<Instant>,
    leave_at: Option<Instant>,
    /// How long the server wants this client to stay away once it has closed.
    wish: Option<Duration>,
    fetch: Option<BoxFuture<'static, Fetched>>,
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
            setup,
            id,
            token,
            session: Session::default(),
            seen: Seen::default(),
            directory_version: 0,
            outgoing: Outgoing::default(),
            backoff: Backoff::default(),
            orders_open: true,
        })
    }

    /// Whose device this is.
    #[must_use]
    pub fn user(&self) -> &UserId {
        &self.id
    }

    /// Connects, and again after every end that allows it. Ends only when the server says stop; the owner aborts it.
    pub async fn run(mut self) {
        loop {
            let (next, wish) = match self.connect().await {
                Ok(link) => self.live(link).await,
                Err(error) => self.refused(&error),
            };
            let wait = match next {
                Next::Stop => return self.setup.recorder.with(|log| log.stopped = true),
                Next::BackOff => self.backoff.wait(wish),
                Next::Resume => Duration::from_millis(rand::random_range(0..50)),
                Next::NewToken => {
                    // A token file has no newer one; then the old one is tried again.
                    if let Ok((_, token)) = self.setup.target.user(self.setup.user) {
                        self.token = token;
                    }
                    self.backoff.wait(None)
                }
                Next::WithoutPosition => {
                    self.session.position_lost();
                    self.backoff.wait(None)
                }
            };
            self.pause(wait).await;
        }
    }

    async fn connect(&mut self) -> Result<Link, ConnectError> {
        let resume = self.session.resume_from().map(|place| format!("{}:{}", place.epoch, place.seq));
        let dial = self.setup.target.dial(self.node, self.setup.number, &self.token, resume.as_deref());
        let (reader, writer) = connect(dial.address, dial.source, &dial.path_and_query, &dial.headers, false).await?;
        Ok(Link {
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

    fn refused(&mut self, error: &ConnectError) -> (Next, Option<Duration>) {
        self.node = self.node.wrapping_add(1);
        self.setup.recorder.failed(false, error.label());
        match error {
            ConnectError::Refused { status, retry_after } => (after_refusal(*status), *retry_after),
            ConnectError::Io(_) | ConnectError::BadAnswer | ConnectError::TimedOut => (Next::BackOff, None),
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
    async fn live(&mut self, mut link: Link) -> (Next, Option<Duration>) {
        let end = match self.serve(&mut link).await {
            Ok(end) => end,
            Err(_) => End::Broken,
        };
        let opened = self.session.socket().is_some();
        self.session.closed();
        let code = if let End::Closed(code) = end { code } else { None };
        self.setup.recorder.with(|log| *log.closes.entry(code.unwrap_or(0)).or_default() += 1);
        if opened {
            self.setup.recorder.record(Entry::Closed);
        } else if !matches!(end, End::Moved) {
            self.setup.recorder.failed(true, format!("close {}", code.unwrap_or(0)));
        }
        if !matches!(end, End::Moved) || link.leave_at.is_some() {
            self.node = self.node.wrapping_add(1);
        }
        let next = match end {
            End::Closed(code) => after_close(code),
            End::Broken => Next::BackOff,
            End::Moved => Next::Resume,
        };
        (next, link.wish)
    }

    async fn serve(&mut self, link: &mut Link) -> io::Result<End> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let stalled = link.stalled_until.is_some();
            let Link { reader, fetch, .. } = link;
            tokio::select! {
                incoming = reader.next(), if !stalled => {
                    link.heard = Instant::now();
                    link.pinged = false;
                    match incoming? {
                        Incoming::Text(text) => self.take(link, &text)?,
                        Incoming::Ping(payload) => link.writer.send(Opcode::Pong, &payload)?,
                        Incoming::Pong => {}
                        Incoming::Close(close) => {
                            let _ = link.writer.send(Opcode::Close, &close.code.unwrap_or(1000).to_be_bytes());
                            return Ok(End::Closed(close.code));
                        }
                    }
                }
                order = self.setup.orders.recv(), if self.orders_open => match order {
                    Some(Order::Send(send)) => {
                        self.queue(send);
                        self.pump(link)?;
                    }
                    Some(Order::Drop) => {
                        link.writer.reset_on_close()?;
                        return Ok(End::Moved);
                    }
                    Some(Order::Stall(time)) => link.stalled_until = Some(Instant::now() + time),
                    None => self.orders_open = false,
                },
                fetched = async { match fetch { Some(fetch) => fetch.await, None => pending().await } } => {
                    link.fetch = None;
                    self.fetched(&fetched);
                }
                _ = tick.tick() => {
                    if let Some(end) = self.tick(link)? {
                        return Ok(end);
                    }
                }
            }
        }
    }

    fn queue(&mut self, send: Send) {
        self.outgoing.push(send);
        self.note_unsettled();
    }

    fn note_unsettled(&self) {
        let unsettled = self.outgoing.unsettled();
        self.setup.recorder.with(|log| log.unsettled = unsettled);
    }

    fn pump(&mut self, link: &Link) -> io::Result<()> {
        if link.authenticated {
            for frame in self.outgoing.due(Instant::now()) {
                link.writer.send_text(&frame)?;
            }
        }
        Ok(())
    }

    /// The clocks: repeats, silence, the end of a stall, `goaway`, holes.
    fn tick(&mut self, link: &mut Link) -> io::Result<Option<End>> {
        let now = Instant::now();
        link.writer.flush()?;
        if let Some(until) = link.stalled_until {
            if now < until {
                return Ok(None);
            }
            link.stalled_until = None;
            link.heard = now;
        }
        if link.leave_at.is_some_and(|moment| now >= moment) {
            let _ = link.writer.send(Opcode::Close, &1000_u16.to_be_bytes());
            return Ok(Some(End::Moved));
        }
        let silent = now.duration_since(link.heard);
        if silent >= SILENCE * 2 {
            return Ok(Some(End::Broken));
        }
        if silent >= SILENCE && link.authenticated && !std::mem::replace(&mut link.pinged, true) {
            link.writer.send_text(r#"{"type":"ping"}"#)?;
        }
        self.pump(link)?;
        self.learn();
        if link.fetch.is_none() && link.authenticated && !self.session.is_resyncing() {
            let holes = self.seen.overdue(now);
            if !holes.is_empty() {
                let wanted = holes.into_iter().map(|conversation| (self.seen.marks(&conversation), conversation));
                let wanted = wanted.map(|((seq, rev), conversation)| (conversation, seq, rev)).collect();
                link.fetch = Some(self.fetch(FetchReason::Hole, wanted));
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
                self.seen.begin(&conversation, base_seq);
            }
        }
    }

    fn take(&mut self, link: &mut Link, text: &[u8]) -> io::Result<()> {
        let Ok(frame) = wire::parse(text) else {
            self.setup.recorder.with(|log| log.malformed += 1);
            return Ok(());
        };
        let step = match &frame.body {
            Body::AuthSuccess(auth) if !link.authenticated => {
                link.authenticated = true;
                self.backoff.succeeded();
                self.outgoing.reconnected(Instant::now());
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
            let conversations = self.setup.directory.of(&self.id).into_iter();
            let wanted = conversations.map(|(conversation, _)| (self.seen.marks(&conversation), conversation));
            let wanted = wanted.map(|((seq, rev), conversation)| (conversation, seq, rev)).collect();
            link.fetch = Some(self.fetch(FetchReason::Resync, wanted));
        }
        self.act(link, &frame)
    }

    /// Does what a frame wants beyond its place in the log.
    fn act(&mut self, link: &mut Link, frame: &ServerFrame) -> io::Result<()> {
        match &frame.body {
            Body::New(message) => self.seen.take(message, Instant::now()),
            Body::Sent { temp_id, message, duplicate } => {
                // The answer to a repeated send is no delivery: that one still has to come by the log or a fetch.
                if !duplicate || frame.seq.is_some() {
                    self.seen.take(message, Instant::now());
                }
                self.acknowledge(temp_id.as_deref(), message, *duplicate);
                return self.pump(link);
            }
            Body::AuthSuccess(_) => return self.pump(link),
            Body::Goaway { reconnect_window_ms } => {
                let window = Duration::from_millis(*reconnect_window_ms).min(GOAWAY_JITTER_MAX);
                let moment = Instant::now() + window.mul_f64(rand::random_range(0.0..=0.9));
                link.leave_at.get_or_insert(moment);
            }
            Body::Error { code, retryable, retry_after_ms } => {
                let Some(temp_id) = &frame.reference else {
                    // An answer to no command: the server is about to close, and says for how long.
                    link.wish = retry_after_ms.map(Duration::from_millis);
                    return Ok(());
                };
                if *retryable {
                    let wait =
                        Duration::from_millis(retry_after_ms.unwrap_or(500)).mul_f64(rand::random_range(1.0..=1.5));
                    self.outgoing.postpone(temp_id, Instant::now() + wait);
                } else if self.outgoing.settle(temp_id) {
                    self.setup.recorder.with(|log| *log.refused.entry(code.clone()).or_default() += 1);
                    self.note_unsettled();
                    return self.pump(link);
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
        if self.outgoing.settle(temp_id) {
            self.setup.recorder.acknowledged(temp_id, Sighting::from(message));
            self.note_unsettled();
        }
    }

    fn fetch(
        &self,
        reason: FetchReason,
        wanted: Vec<(shared::ConversationId, u64, u64)>,
    ) -> BoxFuture<'static, Fetched> {
        let rest = self.setup.rest.clone();
        Box::pin(Fetch { reason, rest, node: self.node, token: self.token.clone(), wanted }.run())
    }

    fn fetched(&mut self, fetched: &Fetched) {
        for message in &fetched.messages {
            self.seen.take(message, Instant::now());
            self.setup.recorder.record(Entry::Fetched { reason: fetched.reason, message: Sighting::from(message) });
        }
        if fetched.reason == FetchReason::Resync {
            self.session.fetched();
            self.setup.recorder.record(Entry::Adopted);
        }
    }
}
