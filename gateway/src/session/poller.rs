//! Long polling: a reader of the same log as a socket. It waits in the registry like a socket, so an event wakes it and
//! no read is in vain. It holds no position: each poll brings its own.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use shared::command::Resume;
use shared::event::ResyncReason;
use shared::{CloseCode, Epoch, Position, UserId, Wire};
use tokio::time::Instant;

pub use super::polled::KnownPlaces;
use super::polled::Polled;
use super::registered::{Registered, expiry_s};
use crate::auth::{AuthError, Identity};
use crate::backbone::{BackboneError, LogHead, check_resume};
use crate::delivery::envelope::{CountMove, first_event};
use crate::delivery::heal::readable;
use crate::delivery::send_queue::{Batch, FramedBytes, SendQueue};
use crate::node::Node;
use crate::ws::frame::text_payloads;

/// Entries of the log in one answer.
const ENTRIES_MAX: u32 = 100;
/// How long an answer waits for unread counts: an answer without them can't be followed by them.
const COUNTS_WITHIN: Duration = Duration::from_secs(1);
/// How long an answer waits for large conversations to say what was missed. What isn't there then comes with the next.
const PLACES_WITHIN: Duration = Duration::from_secs(2);
/// How the companion that tells a count begins.
const COUNT: &[u8] = br#"{"type":"notification.unread","#;

/// The outcome of a poll.
#[derive(Debug)]
pub enum PollOutcome {
    /// The events after the asked position, in order; none if the time was up.
    Events {
        /// The log's epoch.
        epoch: Epoch,
        /// The position after these events.
        seq: u64,
        /// Each a payload of newline-separated envelopes: the event, then its companions.
        entries: Vec<Bytes>,
        /// Where the client is in large conversations behind these events; `None` if it doesn't know of them, or there are none.
        places: Option<KnownPlaces>,
    },
    /// The asked position can't be served. The client fetches what it lacks, then goes on from this one.
    Moved {
        /// Why.
        reason: ResyncReason,
        /// The new position.
        position: Position,
    },
    /// The user may no longer listen.
    Ended(CloseCode),
    /// The user, or the node, has as many polls waiting as there may be.
    TooMany,
}

/// Waits for events of `user` after `since`, at most for `wait`. Without `since`, or with nothing to wait for, it ends at
/// once. `identity`: the user's own, whose right to listen may end meanwhile; a backend that acts for them has none.
pub async fn poll(
    node: &Arc<Node>,
    user: &UserId,
    identity: Option<&Identity>,
    since: Option<Resume>,
    wait: Duration,
) -> Result<PollOutcome, BackboneError> {
    let backbone = &node.backbone;
    let deadline = Instant::now() + wait;
    let (asked, named) = match since {
        Some(Resume::From(position, named)) => (position, named),
        Some(Resume::Invalid) => return moved(ResyncReason::Invalid, backbone.open(user).await?),
        None => {
            let head = backbone.open(user).await?;
            let places = Polled::look_up(node, user, None).await.heads();
            return Ok(PollOutcome::Events { epoch: head.epoch, seq: head.last, entries: Vec::new(), places });
        }
    };
    let Some(_turn) = node.polls.take(user) else { return Ok(PollOutcome::TooMany) };
    let expires_s = identity.map_or(u32::MAX, expiry_s);
    let Some(listener) = register(node, user, expires_s).await? else { return Ok(PollOutcome::TooMany) };
    if let Some(identity) = identity {
        node.registry.set_issued(user, listener.number, identity.issued_at_s);
        // Now that it stands in the registry, an order to close finds this poll, or this finds the revocation.
        match node.authenticator.check_revoked(identity).await {
            Ok(()) => {}
            Err(AuthError::Refused(refused)) => return Ok(PollOutcome::Ended(refused.close_code())),
            Err(AuthError::Unavailable(reason)) => return Err(BackboneError(reason.to_string())),
        }
    }
    let head = backbone.open(user).await?;
    // From here on events after `head` wake this poll.
    listener.open_gate(&head, head.last, Bytes::new());
    if let Err(reason) = check_resume(&asked, &head) {
        return moved(reason, head);
    }
    let mut batch = Batch::default();
    // Behind the log's head: what becomes large from then on stands behind it.
    let mut large = Polled::look_up(node, user, named).await;
    let mut is_joined = false;
    loop {
        let page = readable(backbone.read(user, asked.seq, ENTRIES_MAX).await?, &node.metrics);
        if page.head.epoch != asked.epoch {
            return moved(ResyncReason::Epoch, page.head);
        }
        // Up to a hole of the log's own, whose events are gone.
        let next = (asked.seq + 1..).zip(page.entries).take_while(|(expected, (seq, _))| expected == seq);
        let entries: Vec<Bytes> = next.map(|(_, (_, payload))| payload).collect();
        if page.head.floor > asked.seq || entries.is_empty() && page.head.last > asked.seq {
            return moved(ResyncReason::Trimmed, page.head);
        }
        if !is_joined {
            large.join(&listener, &entries);
            settle(&listener, &mut batch, &mut large).await;
            is_joined = true;
        }
        if !large.is_unaware() && (!entries.is_empty() || large.has_events()) {
            let seq = asked.seq + u64::try_from(entries.len()).unwrap_or(0);
            let entries = with_counts(&listener, entries, &mut batch, &mut large).await;
            return Ok(events(page.head.epoch, seq, entries, large));
        }
        let reason = match entries.is_empty() {
            true => wait_for_event(&listener, &asked, deadline, (&mut batch, &mut large)).await,
            false => WakeReason::Event,
        };
        match reason {
            WakeReason::Closed(code @ (CloseCode::SessionRevoked | CloseCode::TokenExpired)) => {
                return Ok(PollOutcome::Ended(code));
            }
            // The client doesn't say where it is in large conversations: whatever was said there, it has to fetch.
            _ if large.is_unaware() => return moved(ResyncReason::Trimmed, backbone.open(user).await?),
            WakeReason::Event => {}
            // Whatever else ends a socket ends this poll early; the next one is as good on any node.
            WakeReason::Closed(_) | WakeReason::TimeUp => {
                return Ok(events(asked.epoch, asked.seq, Vec::new(), large));
            }
        }
    }
}

/// The events of the log, and those of large conversations behind them.
fn events(epoch: Epoch, seq: u64, mut entries: Vec<Bytes>, large: Polled) -> PollOutcome {
    let (said, places) = large.end();
    entries.extend(said);
    PollOutcome::Events { epoch, seq, entries, places }
}

/// Takes what came for the listener's socket.
fn take(listener: &Registered, batch: &mut Batch, large: &mut Polled, waker: &Waker) {
    listener.queue.take(batch, waker);
    large.take(batch.frames.drain(..));
}

/// Waits until each large conversation has said what was missed, but not for long.
async fn settle(listener: &Registered, batch: &mut Batch, large: &mut Polled) {
    let settled = poll_fn(|context| {
        take(listener, batch, large, context.waker());
        let is_over = large.is_settled() || batch.close.is_some() || batch.abort;
        if is_over { Poll::Ready(()) } else { Poll::Pending }
    });
    if tokio::time::timeout(PLACES_WITHIN, settled).await.is_err() {
        tracing::debug!(user = %listener.user, "a poll goes on without what was missed of a large conversation");
    }
}

fn moved(reason: ResyncReason, head: LogHead) -> Result<PollOutcome, BackboneError> {
    Ok(PollOutcome::Moved { reason, position: Position { epoch: head.epoch, seq: head.last } })
}

/// Why a poll goes on.
enum WakeReason {
    Event,
    Closed(CloseCode),
    TimeUp,
}

/// Registers and subscribes; `None` if the user has as many sockets as the limit allows.
async fn register(node: &Arc<Node>, user: &UserId, expires_s: u32) -> Result<Option<Registered>, BackboneError> {
    let queue = Arc::new(SendQueue::new(node.limits.send_queue_bytes, Wire::CHAT));
    let number = node.next_connection();
    let Some(mut listener) = Registered::add(node, user, number, &queue, expires_s) else { return Ok(None) };
    listener.subscribe().await?;
    // Every poll refreshes presence, which lasts longer than the longest one.
    if let Err(error) = node.chat.arrived(user, false).await {
        tracing::debug!(%user, %error, "an arrival could not be announced");
    }
    Ok(Some(listener))
}

/// Events with the unread counts that they have moved behind them, if these are known or can be loaded soon.
async fn with_counts(
    listener: &Registered,
    mut entries: Vec<Bytes>,
    batch: &mut Batch,
    large: &mut Polled,
) -> Vec<Bytes> {
    let moves: Vec<CountMove<'_>> = entries.iter().rev().filter_map(|event| first_event(event).counts).collect();
    let (registry, user) = (&listener.node.registry, &listener.user);
    take(listener, batch, large, Waker::noop());
    if registry.repeat_counts(user, listener.number, &moves) {
        let loaded = poll_fn(|context| {
            listener.queue.take(batch, context.waker());
            if registry.has_counts_due(user) { Poll::Pending } else { Poll::Ready(()) }
        });
        if tokio::time::timeout(COUNTS_WITHIN, loaded).await.is_err() {
            tracing::debug!(%user, "a poll is answered without unread counts");
        }
    }
    listener.queue.take(batch, Waker::noop());
    let told: Vec<FramedBytes> = batch.frames.drain(..).collect();
    large.take(told.iter().cloned());
    let lines = told.iter().flat_map(|framed| text_payloads(framed).map(Bytes::copy_from_slice));
    entries.extend(lines.filter(|line| line.starts_with(COUNT)));
    entries
}

/// Waits until a durable event came, the log was begun anew, or a socket in this place would be closed.
async fn wait_for_event(
    listener: &Registered,
    asked: &Position,
    deadline: Instant,
    (batch, large): (&mut Batch, &mut Polled),
) -> WakeReason {
    let woken = poll_fn(|context| {
        take(listener, batch, large, context.waker());
        if let Some(code) = batch.close {
            return Poll::Ready(WakeReason::Closed(code));
        }
        if batch.abort {
            return Poll::Ready(WakeReason::Closed(CloseCode::SlowConsumer));
        }
        let news = listener.queue.position().is_some_and(|(position, _)| position > asked.seq);
        let epoch = listener.node.registry.epoch(listener.user.as_str());
        let anew = epoch.is_some_and(|epoch| epoch != asked.epoch);
        if news || anew || large.has_events() { Poll::Ready(WakeReason::Event) } else { Poll::Pending }
    });
    tokio::time::timeout_at(deadline, woken).await.unwrap_or(WakeReason::TimeUp)
}
