//! The parts of a connection that every state has: its queue, its allowances, and the ways to answer or close it.
//!
//! It decodes frames and answers on the connection's own queue. It carries out no command, and never waits.

use std::cell::RefCell;
use std::sync::Arc;

use shared::dialect::{DecodedFrame, Decoder};
use shared::{CloseCode, Command, ErrorCode, Event, ProtocolError};

use super::socket::Incoming;
use crate::auth::{AuthError, TokenRefusal};
use crate::clock::now_us;
use crate::delivery::frames::reply_on;
use crate::delivery::send_queue::SendQueue;
use crate::limits::{AddressKey, Bucket, Rate};
use crate::node::Node;

/// When a connection that could not join may come again.
const RETRY_AFTER_MS: std::ops::RangeInclusive<u64> = 500..=5_000;
/// Bad frames in a row that end the connection.
const BAD_FRAMES_MAX: u8 = 100;
/// Commands over the limit that a connection is forgiven: ten a second, and a hundred at once. More end it.
const FORGIVEN: Rate = Rate::new(100_000, 10_000_000);

/// Why a connection does not become a live one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The token is not valid, or could not be checked; the error says which.
    Auth(AuthError),
    /// Another reason, given by the close code.
    Close(CloseCode),
}

/// A command that a client sent.
pub(super) struct Request {
    /// The command itself.
    pub(super) command: Command,
    /// The client's name for it, which the reply repeats.
    pub(super) reference: Option<String>,
}

/// A message that is not carried out.
pub(super) struct Rejected {
    /// Why.
    pub(super) reason: Rejection,
    /// The client's name for the command.
    pub(super) reference: Option<String>,
}

/// Why a message is not carried out.
pub(super) enum Rejection {
    /// It is no command.
    NoCommand(Box<ProtocolError>),
    /// The connection or its user sends more than they may.
    OverTheLimit {
        /// When to send it again.
        wait_ms: u64,
    },
}

/// The parts that every state of a session works with.
pub(super) struct Connection {
    /// The node that serves the connection; shared by all sessions.
    pub(super) node: Arc<Node>,
    /// The frames that the socket has to write; shared with the socket, and with the lobby or the registry.
    pub(super) queue: Arc<SendQueue>,
    /// The connection's number on this node, the key in lobby and registry.
    pub(super) number: u64,
    /// The client's address, as the limits know it.
    pub(super) from: AddressKey,
    /// The connection's own allowance of commands, pings, pongs that weren't asked for, and fragments. The user's, over all
    /// connections, is the node's (`user_rates`).
    commands: Bucket,
    /// The connection's allowance of commands over the limit: when it is used up, the connection is closed.
    forgiven: Bucket,
    /// Bad frames since the last good one.
    bad_frames: u8,
}

thread_local! {
    static DECODER: RefCell<Option<Decoder>> = const { RefCell::new(None) };
}

impl Connection {
    /// A new connection of a client at `from`, with whole allowances.
    pub(super) fn new(node: Arc<Node>, number: u64, queue: Arc<SendQueue>, from: AddressKey) -> Self {
        Self { node, queue, number, from, commands: Bucket::default(), forgiven: Bucket::default(), bad_frames: 0 }
    }

    /// Reads a command from a message, if the connection may send one now. A message on a closing connection is ignored.
    pub(super) fn read(&mut self, incoming: Incoming<'_>) -> Option<Result<Request, Rejected>> {
        let frame = match incoming {
            Incoming::Text(frame) => frame,
            Incoming::Frame if self.queue.closing().is_some() => return None,
            Incoming::Frame => return self.count().err().map(|reason| Err(Rejected { reason, reference: None })),
            Incoming::Binary(_) => {
                let error = ProtocolError::new(ErrorCode::InvalidMessage, "send text frames, not binary ones");
                return Some(Err(Rejected { reason: Rejection::NoCommand(Box::new(error)), reference: None }));
            }
        };
        if self.queue.closing().is_some() {
            return None;
        }
        let DecodedFrame { command, reference } = DECODER.with_borrow_mut(|decoder| {
            let decoder = decoder.get_or_insert_with(|| Decoder::new(self.node.limits.content_chars_max));
            decoder.decode_as(self.queue.wire().dialect, frame)
        });
        let command = match command {
            Ok(command) => command,
            Err(error) => return Some(Err(Rejected { reason: Rejection::NoCommand(Box::new(error)), reference })),
        };
        self.bad_frames = 0;
        Some(match self.count() {
            Ok(()) => Ok(Request { command, reference }),
            Err(reason) => Err(Rejected { reason, reference }),
        })
    }

    /// Counts a command, or a frame that brings none.
    fn count(&mut self) -> Result<(), Rejection> {
        let rate = Rate::per_second(self.node.limits.commands_per_second);
        let taken = self.commands.take(rate, now_us());
        taken.map_err(|wait_us| Rejection::OverTheLimit { wait_ms: wait_us.div_ceil(1000) })
    }

    /// Tells the client why its message is not carried out. Too many of these close the connection.
    pub(super) fn reject(&mut self, reason: Rejection, reference: Option<&str>) {
        match reason {
            Rejection::NoCommand(error) => {
                self.answer(Err(*error), reference);
                self.bad_frames = self.bad_frames.saturating_add(1);
                if self.bad_frames >= BAD_FRAMES_MAX {
                    self.queue.close(CloseCode::TooManyErrors);
                }
            }
            Rejection::OverTheLimit { wait_ms } => {
                let error = ProtocolError::new(ErrorCode::RateLimited, "too many commands").retry_after_ms(wait_ms);
                self.answer(Err(error), reference);
                if self.forgiven.take(FORGIVEN, now_us()).is_err() {
                    self.queue.close(CloseCode::RateLimited);
                }
            }
        }
    }

    /// Replies with the outcome of a command, if there is something to reply.
    pub(super) fn answer(&self, result: Result<Option<Event>, ProtocolError>, reference: Option<&str>) {
        match result {
            Ok(Some(event)) => self.reply(&event, reference),
            Ok(None) => {}
            Err(error) => {
                self.node.metrics.error(error.code);
                self.reply(&Event::Error(error), reference);
            }
        }
    }

    /// Queues an event for this connection alone.
    pub(super) fn reply(&self, event: &Event, reference: Option<&str>) {
        self.queue.push_reply(reply_on(self.queue.wire(), event, reference));
    }

    /// Closes a connection that could not become a live one, and says why.
    pub(super) fn turn_away(&self, refusal: Refusal) {
        match refusal {
            Refusal::Auth(AuthError::Refused(refused)) => self.refuse(refused),
            Refusal::Auth(AuthError::Unavailable(_)) => self.send_away(CloseCode::BackboneUnavailable),
            Refusal::Close(code) => self.send_away(code),
        }
    }

    /// Closes a connection whose token was refused.
    pub(super) fn refuse(&self, refused: TokenRefusal) {
        self.node.metrics.handshake(refused.label());
        self.reply(&auth_failed(refused), None);
        self.queue.close(refused.close_code());
    }

    /// Closes a connection that could not join. A client that may retry gets a random `retryAfterMs`, so that retries
    /// of many clients are spread out.
    fn send_away(&self, code: CloseCode) {
        self.node.metrics.handshake(code.reason());
        if matches!(code, CloseCode::OverCapacity | CloseCode::BackboneUnavailable) {
            let wait_ms = rand::random_range(RETRY_AFTER_MS);
            let error = ProtocolError::new(ErrorCode::Unavailable, "this node can't take the connection now");
            self.answer(Err(error.retry_after_ms(wait_ms)), None);
        }
        self.queue.close(code);
    }
}

/// The event for a refused token.
pub(super) fn auth_failed(refused: TokenRefusal) -> Event {
    Event::AuthFailed { code: refused.error_code(), message: refused.to_string().into() }
}
