//! A session: one socket, one task. Before `auth` it knows no user; after that it carries out one command at a time,
//! in order, while events go out beside it.
//!
//! It holds no timer and no buffer: the clocks of all sockets are swept once a second, and bytes wait in the queue.

mod join;
pub mod poller;
pub mod socket;

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use shared::command::Resume;
use shared::dialect::chat::{DecodedFrame, Decoder};
use shared::{CloseCode, Command, ErrorCode, Event, ProtocolError};

use crate::auth::{AuthError, Credential, Identity, TokenRefusal, Unavailable};
use crate::clock::now_us;
use crate::delivery::frames::reply_on;
use crate::delivery::send_queue::SendQueue;
use crate::dispatch::{Asker, dispatch, pong};
use crate::limits::{Allowance, Bucket, Rate};
use crate::node::Node;
use crate::node::lobby::Seat;
use crate::session::socket::{Flow, Incoming, Socket, SocketEnd};
use join::{LiveConnection, Refusal};

/// When a connection that could not join may come again.
const RETRY_AFTER_MS: std::ops::RangeInclusive<u64> = 500..=5_000;
/// Bad frames in a row that end the connection.
const BAD_FRAMES_MAX: u8 = 100;
/// Commands over the limit that a connection is forgiven: ten a second, and a hundred at once. More end it.
const FORGIVEN: Rate = Rate::new(100_000, 10_000_000);

/// What is known of the user when the socket opens.
#[derive(Debug)]
pub enum Opening {
    /// The upgrade carried a valid token.
    Known(Box<Identity>, Option<Resume>),
    /// The upgrade carried a token that was refused: say so, then close.
    Refused(TokenRefusal),
    /// No token came: the `auth` frame brings it.
    Unknown(Option<Resume>),
    /// The connection can't be served: close with this code.
    Close(CloseCode),
}

/// A socket's whole life, as a future.
pub struct Session {
    socket: Socket,
    state: State,
}

struct State {
    node: Arc<Node>,
    queue: Arc<SendQueue>,
    connection: u64,
    phase: Phase,
    work: Option<Pin<Box<dyn Future<Output = Done> + Send>>>,
    commands: Bucket,
    forgiven: Bucket,
    bad_frames: u8,
}

enum Phase {
    /// No user yet. The seat in the lobby is given up when a token was accepted.
    Unknown { _seat: Option<Seat>, resume: Option<Box<Resume>> },
    /// Subscribed, and counted in the registry until this is dropped.
    Live(LiveConnection),
}

/// What a finished work leaves to do.
enum Done {
    Authenticated {
        result: Result<Box<Identity>, AuthError>,
        resume: Option<Resume>,
    },
    Refreshed {
        result: Result<Box<Identity>, AuthError>,
        reference: Option<String>,
    },
    Joined(Box<Result<LiveConnection, Refusal>>),
    /// Whether the user may send this command now.
    Decided {
        allowance: Allowance,
        command: Box<Command>,
        reference: Option<String>,
    },
    Answered {
        result: Box<Result<Option<Event>, ProtocolError>>,
        reference: Option<String>,
    },
}

thread_local! {
    static DECODER: RefCell<Option<Decoder>> = const { RefCell::new(None) };
}

impl Session {
    /// A session on a socket whose queue is `queue`.
    pub fn new(node: Arc<Node>, socket: Socket, queue: Arc<SendQueue>, opening: Opening) -> Self {
        let connection = node.next_connection();
        let phase = Phase::Unknown { _seat: None, resume: None };
        let mut state = State {
            node,
            queue,
            connection,
            phase,
            work: None,
            commands: Bucket::default(),
            forgiven: Bucket::default(),
            bad_frames: 0,
        };
        state.open(opening);
        Self { socket, state }
    }

    /// The connection's number on this node.
    #[must_use]
    pub fn connection(&self) -> u64 {
        self.state.connection
    }
}

impl Future for Session {
    type Output = SocketEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<SocketEnd> {
        let Self { socket, state } = &mut *self;
        loop {
            state.poll_work(cx);
            let idle = state.work.is_none() && !state.queue.liveness().is_quiet();
            let driven = socket.poll_drive(cx, idle, &mut |incoming| state.on_message(incoming));
            match driven {
                Poll::Ready(ended) => return Poll::Ready(ended),
                // A command came: start on it now, and go on reading if it was quick.
                Poll::Pending if idle && state.work.is_some() => {}
                Poll::Pending => {
                    state.ask_for_more();
                    return Poll::Pending;
                }
            }
        }
    }
}

impl State {
    fn open(&mut self, opening: Opening) {
        match opening {
            Opening::Known(identity, resume) => self.join(*identity, resume),
            Opening::Unknown(resume) => {
                let seat = self.node.lobby.sit(self.connection, &self.queue);
                self.phase = Phase::Unknown { _seat: Some(seat), resume: resume.map(Box::new) };
            }
            Opening::Refused(refused) => self.refuse(refused),
            Opening::Close(code) => self.close(code),
        }
    }

    /// What the log had and the queue had no room for.
    fn ask_for_more(&self) {
        if let Phase::Live(membership) = &self.phase
            && self.queue.wants_more()
        {
            self.node.fanout.request_heal(membership.user());
        }
    }

    fn poll_work(&mut self, cx: &mut Context<'_>) {
        // What is finished may leave something else to do, as joining does after authentication.
        while let Some(work) = &mut self.work {
            let Poll::Ready(done) = work.as_mut().poll(cx) else { return };
            self.work = None;
            self.finish(done);
        }
    }

    fn finish(&mut self, done: Done) {
        match done {
            Done::Authenticated { result, resume } => self.authenticated(result, resume),
            Done::Refreshed { result, reference } => self.refreshed(result, reference.as_deref()),
            Done::Joined(joined) => match *joined {
                Ok(membership) => self.phase = Phase::Live(membership),
                Err(Refusal::Auth(AuthError::Refused(refused))) => self.refuse(refused),
                Err(Refusal::Auth(AuthError::Unavailable(_))) => self.send_away(CloseCode::BackboneUnavailable),
                Err(Refusal::Close(code)) => self.send_away(code),
            },
            Done::Answered { result, reference } => self.answer(*result, reference.as_deref()),
            Done::Decided { allowance: Allowance::Wait(wait_ms), reference, .. } => {
                self.over_the_limit(wait_ms, reference.as_deref());
            }
            Done::Decided { allowance: Allowance::Granted, command, reference } => {
                self.carry_out(*command, reference);
            }
        }
    }

    fn on_message(&mut self, incoming: Incoming<'_>) -> Flow {
        let frame = match incoming {
            Incoming::Text(frame) => frame,
            Incoming::Binary(_) => {
                let error = ProtocolError::new(ErrorCode::InvalidMessage, "send text frames, not binary ones");
                return self.bad_frame(&error, None);
            }
        };
        if self.queue.closing().is_some() {
            return Flow::Continue;
        }
        let DecodedFrame { command, reference } = DECODER.with_borrow_mut(|decoder| {
            let decoder = decoder.get_or_insert_with(|| Decoder::new(self.node.limits.content_chars_max));
            decoder.decode_as(self.queue.wire().dialect, frame)
        });
        match command {
            Ok(command) => {
                self.bad_frames = 0;
                self.admit(command, reference)
            }
            Err(error) => self.bad_frame(&error, reference.as_deref()),
        }
    }

    /// Whether the connection, and its user on all nodes, may send a command now.
    fn admit(&mut self, command: Command, reference: Option<String>) -> Flow {
        let rate = Rate::per_second(self.node.limits.commands_per_second);
        if let Err(wait_us) = self.commands.take(rate, now_us()) {
            return self.over_the_limit(wait_us.div_ceil(1000), reference.as_deref());
        }
        let Phase::Live(membership) = &self.phase else { return self.carry_out(command, reference) };
        match self.node.user_rates.check(membership.user()) {
            Some(Allowance::Granted) => self.carry_out(command, reference),
            Some(Allowance::Wait(wait_ms)) => self.over_the_limit(wait_ms, reference.as_deref()),
            None => {
                let (node, user) = (Arc::clone(&self.node), membership.user().clone());
                self.work = Some(Box::pin(async move {
                    let allowance = node.user_rates.draw(&user).await;
                    Done::Decided { allowance, command: Box::new(command), reference }
                }));
                Flow::Pause
            }
        }
    }

    fn carry_out(&mut self, command: Command, reference: Option<String>) -> Flow {
        self.node.metrics.command(command.name());
        match (command, &self.phase) {
            (Command::Auth { token, resume }, Phase::Unknown { .. }) => self.authenticate(token, resume),
            (Command::Auth { token, .. }, Phase::Live(_)) => self.refresh(token, reference),
            (Command::Ping { timestamp }, Phase::Live(_)) => self.reply(&pong(timestamp), reference.as_deref()),
            (command, Phase::Live(membership)) => {
                let live = self.queue.wire().dialect.delivers_without_store();
                let asker = Asker { user: membership.user().clone(), admin: membership.is_admin(), live };
                let (node, queue) = (Arc::clone(&self.node), Arc::clone(&self.queue));
                self.work = Some(Box::pin(async move {
                    let result = Box::new(carry_out(&node, &asker, &queue, command).await);
                    Done::Answered { result, reference }
                }));
            }
            (_, Phase::Unknown { .. }) => {
                let error = ProtocolError::new(ErrorCode::Unauthenticated, "send auth with a token first");
                self.answer(Err(error), reference.as_deref());
            }
        }
        if self.work.is_some() { Flow::Pause } else { Flow::Continue }
    }

    /// The first token. It came in time, so the seat in the lobby is given up, however long the answer takes.
    fn authenticate(&mut self, token: String, resume: Option<Resume>) {
        let earlier = match &mut self.phase {
            Phase::Unknown { _seat: seat, resume } => {
                *seat = None;
                resume.take().map(|resume| *resume)
            }
            Phase::Live(_) => None,
        };
        let resume = resume.or(earlier);
        let credential = Credential::Token(token.into());
        match self.node.authenticator.at_once(&credential) {
            Some(known) => self.authenticated(known.map(Box::new).map_err(AuthError::from), resume),
            None => {
                let node = Arc::clone(&self.node);
                self.work = Some(Box::pin(async move {
                    let result = node.authenticator.authenticate(credential).await.map(Box::new);
                    Done::Authenticated { result, resume }
                }));
            }
        }
    }

    /// From here on the connection is somebody's, or nobody's.
    fn authenticated(&mut self, result: Result<Box<Identity>, AuthError>, resume: Option<Resume>) {
        match result {
            Ok(identity) => self.join(*identity, resume),
            Err(AuthError::Refused(refused)) => self.refuse(refused),
            Err(AuthError::Unavailable(_)) => self.send_away(CloseCode::BackboneUnavailable),
        }
    }

    fn join(&mut self, identity: Identity, resume: Option<Resume>) {
        self.phase = Phase::Unknown { _seat: None, resume: None };
        let (node, queue, connection) = (Arc::clone(&self.node), Arc::clone(&self.queue), self.connection);
        self.work = Some(Box::pin(async move {
            Done::Joined(Box::new(LiveConnection::join(node, identity, resume, connection, queue).await))
        }));
    }

    /// A fresh token on an authenticated connection. Whether it was revoked is asked here, not only when joining.
    fn refresh(&mut self, token: String, reference: Option<String>) {
        let node = Arc::clone(&self.node);
        self.work = Some(Box::pin(async move {
            let authenticator = &node.authenticator;
            let result = match authenticator.authenticate(Credential::Token(token.into())).await {
                Ok(identity) => authenticator.check_revoked(&identity).await.map(|()| Box::new(identity)),
                Err(error) => Err(error),
            };
            Done::Refreshed { result, reference }
        }));
    }

    fn refreshed(&mut self, result: Result<Box<Identity>, AuthError>, reference: Option<&str>) {
        let Phase::Live(membership) = &mut self.phase else { return };
        match result {
            Ok(identity) if identity.user == *membership.user() => membership.refresh(&identity, reference),
            Ok(_) => {
                let error = ProtocolError::new(ErrorCode::Forbidden, "the token is another user's");
                self.answer(Err(error), reference);
            }
            Err(AuthError::Refused(refused)) => self.reply(&auth_failed(refused), reference),
            Err(AuthError::Unavailable(unavailable)) => {
                let error = ProtocolError::new(Unavailable::CODE, unavailable.to_string());
                self.answer(Err(error.retry_after_ms(unavailable.retry_after_ms)), reference);
            }
        }
    }

    fn answer(&self, result: Result<Option<Event>, ProtocolError>, reference: Option<&str>) {
        match result {
            Ok(Some(event)) => self.reply(&event, reference),
            Ok(None) => {}
            Err(error) => {
                self.node.metrics.error(error.code);
                self.reply(&Event::Error(error), reference);
            }
        }
    }

    fn reply(&self, event: &Event, reference: Option<&str>) {
        self.queue.push_reply(reply_on(self.queue.wire(), event, reference));
    }

    fn bad_frame(&mut self, error: &ProtocolError, reference: Option<&str>) -> Flow {
        self.node.metrics.error(error.code);
        self.reply(&Event::Error(error.clone()), reference);
        self.bad_frames = self.bad_frames.saturating_add(1);
        if self.bad_frames >= BAD_FRAMES_MAX {
            self.close(CloseCode::TooManyErrors);
        }
        Flow::Continue
    }

    fn over_the_limit(&mut self, wait_ms: u64, reference: Option<&str>) -> Flow {
        let error = ProtocolError::new(ErrorCode::RateLimited, "too many commands").retry_after_ms(wait_ms);
        self.answer(Err(error), reference);
        if self.forgiven.take(FORGIVEN, now_us()).is_err() {
            self.close(CloseCode::RateLimited);
        }
        Flow::Continue
    }

    fn refuse(&self, refused: TokenRefusal) {
        self.node.metrics.handshake(refused.label());
        self.reply(&auth_failed(refused), None);
        self.close(refused.close_code());
    }

    /// Closes a connection that could not join. Whoever may try again is told when: not all of a herd at the same time.
    fn send_away(&self, code: CloseCode) {
        self.node.metrics.handshake(code.reason());
        if matches!(code, CloseCode::OverCapacity | CloseCode::BackboneUnavailable) {
            let wait_ms = rand::random_range(RETRY_AFTER_MS);
            let error = ProtocolError::new(ErrorCode::Unavailable, "this node can't take the connection now");
            self.answer(Err(error.retry_after_ms(wait_ms)), None);
        }
        self.close(code);
    }

    fn close(&self, code: CloseCode) {
        self.queue.close(code);
    }
}

/// Carries out a command, and sees to it that a connection whose dialect has no echo gets none of what it sends.
async fn carry_out(
    node: &Node,
    asker: &Asker,
    queue: &SendQueue,
    mut command: Command,
) -> Result<Option<Event>, ProtocolError> {
    let muted = match &mut command {
        Command::Send(send) if queue.wire().dialect.mutes_own_sends() => {
            Some(send.temp_id.get_or_insert_with(generated_temp_id).clone())
        }
        _ => None,
    };
    if let Some(temp_id) = &muted {
        queue.mute(temp_id);
    }
    let result = dispatch(&node.chat, asker, command).await;
    if let Some(temp_id) = muted.filter(|_| !matches!(result, Ok(None))) {
        // Refused, or sent before: no event of it will come for this connection. If the outcome of a send is unknown and
        // the event does come, then it is the only thing that tells the sender.
        queue.unmute(&temp_id);
    }
    result
}

/// A name for a message that its sender gave none.
fn generated_temp_id() -> String {
    format!("~{:032x}", rand::random::<u128>())
}

fn auth_failed(refused: TokenRefusal) -> Event {
    Event::AuthFailed { code: refused.error_code(), message: refused.to_string().into() }
}
