//! Server-sent events: a reader of the same log as a socket, with the same place in the registry. It reads no command.
//!
//! It offers [`EventStream`], which turns the frames of its queue into the lines of `text/event-stream`. It never writes them:
//! the HTTP connection does.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use shared::command::Resume;
use shared::{CloseCode, Epoch, ErrorCode, Position, ProtocolError, Wire};
use tokio::time::{Instant, Sleep, sleep};

use super::connection::Refusal;
use super::joining::{Place, join};
use super::live::Live;
use crate::auth::{AuthError, Identity, Unavailable};
use crate::delivery::send_queue::{Batch, SendQueue};
use crate::node::Node;
use crate::ws::frame::text_payloads;

/// A comment goes out that often, so that no proxy takes the stream for dead, and a dead one is noticed.
const COMMENT_EVERY: Duration = Duration::from_secs(15);
/// The comment.
const COMMENT: &[u8] = b":\n\n";
/// When a client comes back whose stream the server ended, in milliseconds: at random, so that many don't come at once.
pub const RETRY_MS: RangeInclusive<u64> = 500..=5_000;

/// A user's stream of events.
pub struct EventStream {
    node: Arc<Node>,
    /// The place in the registry, given up when this is dropped.
    live: Live,
    /// The frames that wait; shared with the registry.
    queue: Arc<SendQueue>,
    /// The epoch of the next event's `seq`: that of the last `auth_success`, `resync` or `position`.
    epoch: Option<Epoch>,
    /// When the next comment is due.
    comment: Pin<Box<Sleep>>,
    /// The last line was given out.
    is_over: bool,
}

/// The parts of an envelope that a stream needs.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    seq: Option<u64>,
    #[serde(borrow)]
    payload: &'a RawValue,
}

impl EventStream {
    /// Opens a stream for the connection `number`: registered, subscribed and at its position.
    ///
    /// # Errors
    /// The user may not listen, or not now.
    pub async fn open(
        node: &Arc<Node>,
        number: u64,
        identity: Identity,
        resume: Option<Resume>,
    ) -> Result<Self, ProtocolError> {
        let queue = Arc::new(SendQueue::new(node.limits.send_queue_bytes, Wire::CHAT));
        let place = Place { node: Arc::clone(node), queue: Arc::clone(&queue), number };
        let live = join(place, identity, resume).await.map_err(|refusal| told(node, refusal))?;
        let comment = Box::pin(sleep(COMMENT_EVERY));
        Ok(Self { node: Arc::clone(node), live, queue, epoch: None, comment, is_over: false })
    }

    /// The stream's queue, for the connection that writes: it tells whether the stream is to end.
    #[must_use]
    pub fn queue(&self) -> &Arc<SendQueue> {
        &self.queue
    }

    /// The next lines, whole events only; `None` after the last.
    pub fn poll_lines(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let (mut lines, mut batch) = (Vec::new(), Batch::default());
        self.queue.take(&mut batch, cx.waker());
        for payload in batch.frames.iter().flat_map(|framed| text_payloads(framed)) {
            self.put_event(&mut lines, payload);
        }
        if self.comment.as_mut().poll(cx).is_ready() {
            self.comment.as_mut().reset(Instant::now() + COMMENT_EVERY);
            batch.ping = true;
        }
        if batch.ping {
            lines.extend_from_slice(COMMENT);
        }
        if let Some(code) = batch.close {
            self.is_over = true;
            if may_come_back(code) {
                lines.extend_from_slice(retry_line(rand::random_range(RETRY_MS)).as_bytes());
            }
        }
        if !lines.is_empty() {
            return Poll::Ready(Some(lines.into()));
        }
        if self.is_over || batch.abort {
            return Poll::Ready(None);
        }
        if self.queue.wants_more() {
            self.node.fanout.request_heal(self.live.user());
        }
        Poll::Pending
    }

    /// Adds an envelope as an event.
    fn put_event(&mut self, lines: &mut Vec<u8>, payload: &[u8]) {
        let mut head = String::new();
        match serde_json::from_slice::<Envelope<'_>>(payload) {
            Ok(Envelope { kind, seq, payload }) => {
                let position = match &*kind {
                    "auth_success" => self.moved_to(payload),
                    "resync" | "position" => {
                        self.moved_to(payload);
                        None
                    }
                    _ => seq.zip(self.epoch.clone()).map(|(seq, epoch)| Position { epoch, seq }),
                };
                // `EventSource` calls its own faults `error`. Writing into a string can't fail.
                if kind != "error" && !kind.contains(char::is_control) {
                    let _ = writeln!(head, "event: {kind}");
                }
                if let Some(Position { epoch, seq }) = position {
                    let _ = writeln!(head, "id: {epoch}:{seq}");
                }
            }
            Err(fault) => tracing::error!(%fault, "an envelope can't be read; a stream passes it on without its type"),
        }
        lines.extend_from_slice(head.as_bytes());
        lines.extend_from_slice(b"data: ");
        // Between JSON's tokens a carriage return is white space; here it would end the line.
        lines.extend(payload.iter().map(|byte| if *byte == b'\r' { b' ' } else { *byte }));
        lines.extend_from_slice(b"\n\n");
    }

    /// Takes over the position that an event tells.
    fn moved_to(&mut self, payload: &RawValue) -> Option<Position> {
        let position: Position = serde_json::from_str(payload.get()).ok()?;
        self.epoch = Some(position.epoch.clone());
        Some(position)
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        let mut batch = Batch::default();
        self.queue.watch(&mut batch, Waker::noop());
        let (by, reason) = match (batch.abort, batch.close) {
            (true, _) => ("server", "write_timeout"),
            (false, Some(code)) => ("server", code.reason()),
            (false, None) => ("client", "vanished"),
        };
        self.node.metrics.ended(by, reason);
    }
}

/// The line that tells `EventSource` when to come back.
#[must_use]
pub fn retry_line(wait_ms: u64) -> String {
    format!("retry: {wait_ms}\n\n")
}

/// Whether a stream that ended with this code is to come back as it is. Otherwise its return is refused for good.
fn may_come_back(code: CloseCode) -> bool {
    !matches!(code.code(), 4000..4100 | 4300..)
}

/// A refusal as REST answers it.
fn told(node: &Node, refusal: Refusal) -> ProtocolError {
    match refusal {
        Refusal::Auth(AuthError::Refused(refused)) => {
            node.metrics.handshake(refused.label());
            ProtocolError::new(refused.error_code(), refused.to_string())
        }
        Refusal::Auth(AuthError::Unavailable(unavailable)) => {
            node.metrics.handshake("auth_unavailable");
            ProtocolError::new(Unavailable::CODE, unavailable.to_string()).retry_after_ms(unavailable.retry_after_ms)
        }
        Refusal::Close(code) => {
            node.metrics.handshake(code.reason());
            match code {
                CloseCode::ConnectionLimit => {
                    ProtocolError::new(ErrorCode::RateLimited, "this user has too many connections")
                }
                _ => ProtocolError::new(ErrorCode::Unavailable, "this node can't take the connection now"),
            }
        }
    }
}
