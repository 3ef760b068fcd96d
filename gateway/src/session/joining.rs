//! The second state: from a token to a live connection. It checks the token, registers, subscribes, reads the log's
//! head, and opens the gate. No message is read meanwhile. It ends as [`Live`], or with the reason for closing the
//! connection.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use shared::CloseCode;
use shared::command::Resume;
use shared::event::ResyncReason;
use tokio::sync::SemaphorePermit;

use super::connection::{Connection, Refusal};
use super::large::Arrival;
use super::live::Live;
use super::registered::{Registered, expiry_s};
use crate::auth::{AuthError, Credential, Identity};
use crate::backbone::{BackboneError, Entrant, EntryOutcome, LogHead, check_resume};
use crate::clock::now_us;
use crate::delivery::envelope::{first_event, is_logged};
use crate::delivery::frames::{companions_on, event_on};
use crate::delivery::heal::resync;
use crate::delivery::send_queue::SendQueue;
use crate::node::Node;
use crate::switches;

/// How long a connection waits for its turn before it is sent away.
const TURN_WITHIN: Duration = Duration::from_secs(5);

/// A connection that joins.
pub(super) struct Joining {
    /// Owns all that the way needs. Dropping it takes back whatever it registered.
    work: Pin<Box<dyn Future<Output = Result<Live, Refusal>> + Send>>,
}

impl Joining {
    /// Begins with a token that came in an `auth` frame.
    pub(super) fn with_token(connection: &Connection, token: String, resume: Option<Resume>) -> Self {
        let (place, from) = (Place::of(connection), connection.from);
        let work = async move {
            let credential = Credential::Token(token.into());
            let identity = place.node.authenticator.authenticate(credential, from).await.map_err(Refusal::Auth)?;
            let connects = place.node.connects.take(&identity.user, now_us());
            connects.map_err(|_| Refusal::Close(CloseCode::RateLimited))?;
            join(place, identity, resume).await
        };
        Self { work: Box::pin(work) }
    }

    /// Begins with an identity that the upgrade request proved.
    pub(super) fn with_identity(connection: &Connection, identity: Identity, resume: Option<Resume>) -> Self {
        Self { work: Box::pin(join(Place::of(connection), identity, resume)) }
    }

    /// Goes on; ready with the live connection, or with the reason why there is none.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Live, Refusal>> {
        self.work.as_mut().poll(cx)
    }
}

/// The parts of a connection that its place in the registry needs.
pub(super) struct Place {
    /// The node.
    pub(super) node: Arc<Node>,
    /// The frames that wait for the connection.
    pub(super) queue: Arc<SendQueue>,
    /// The connection's number on this node.
    pub(super) number: u64,
}

impl Place {
    fn of(connection: &Connection) -> Self {
        let (node, queue) = (Arc::clone(&connection.node), Arc::clone(&connection.queue));
        Self { node, queue, number: connection.number }
    }
}

/// Makes the connection a live one and queues `auth_success`.
pub(super) async fn join(place: Place, identity: Identity, resume: Option<Resume>) -> Result<Live, Refusal> {
    let Place { node, queue, number } = place;
    let _turn = if switches::off("turns") { None } else { Some(take_turn(&node).await?) };
    let registered = Registered::add(&node, &identity.user, number, &queue, expiry_s(&identity));
    let mut registered = registered.ok_or(Refusal::Close(CloseCode::ConnectionLimit))?;
    // Either the drain finds the connection in the registry, or this finds the drain.
    if node.draining.load(Ordering::Relaxed) {
        return Err(Refusal::Close(CloseCode::Draining));
    }
    let guest = registered.watch_credential(&identity);
    registered.subscribe().await.map_err(unavailable)?;
    // The socket is in the registry now. An order to close comes after the revocation that it goes with, so either it finds
    // the socket, or this finds the revocation.
    match node.backbone.enter(entrant(&identity, resume.as_ref())).await.map_err(unavailable)? {
        EntryOutcome::Revoked => {
            let refused = node.authenticator.why_revoked(&identity).await;
            return Err(Refusal::Auth(refused.map_or_else(AuthError::from, AuthError::from)));
        }
        EntryOutcome::At { head, before } => {
            // Behind the log's head: what becomes large from then on stands behind it.
            let arrival = Arrival::look_up(&node, &identity.user, resume.as_ref(), queue.wire()).await;
            open_gate(&registered, (&head, arrival), resume.as_ref(), &before);
        }
    }
    node.metrics.handshake("accepted");
    tracing::debug!(user = %identity.user, connection = number, resume = resume.is_some(), "joined");
    Ok(Live::begin(registered, guest, identity))
}

/// Waits for one of the places for connections that join at the same time.
async fn take_turn(node: &Node) -> Result<SemaphorePermit<'_>, Refusal> {
    let turn = tokio::time::timeout(TURN_WITHIN, node.joining.acquire()).await;
    turn.ok().and_then(Result::ok).ok_or(Refusal::Close(CloseCode::OverCapacity))
}

/// `before` are the entries up to the asked position: the client may have got these events without their companions.
fn open_gate(
    registered: &Registered,
    (head, arrival): (&LogHead, Arrival),
    resume: Option<&Resume>,
    before: &[(u64, Bytes)],
) {
    let metrics = &registered.node.metrics;
    let asked = match resume {
        None => None,
        Some(Resume::Invalid) => Some(Err(ResyncReason::Invalid)),
        // It would miss what was said in large conversations.
        Some(Resume::From(..)) if arrival.is_unaware() && !switches::off("topic-unaware") => {
            Some(Err(ResyncReason::Trimmed))
        }
        Some(Resume::From(position, _)) => Some(check_resume(position, head).map(|()| position.seq)),
    };
    let position = match asked {
        Some(Ok(seq)) => seq,
        Some(Err(_)) | None => head.last,
    };
    let resumed = matches!(asked, Some(Ok(_)));
    let wire = registered.queue.wire();
    let mut first = event_on(wire, &registered.auth_success(head.epoch.clone(), position, resumed)).to_vec();
    let mut moves = Vec::new();
    match asked {
        Some(Err(reason)) => {
            first.extend_from_slice(resync(reason, &head.epoch, head.last).on(wire));
            metrics.resync(reason);
            metrics.resume(Some(reason));
        }
        Some(Ok(_)) => {
            // What others wrote into the log is no event (NOLOSS.md, C4).
            let is_event = |(seq, event): &&(u64, Bytes)| is_logged(*seq, event) && !switches::off("companions");
            let mut events = before.iter().filter(is_event);
            moves.extend(events.clone().filter_map(|(_, event)| first_event(event).counts));
            if let Some((_, event)) = events.find(|(seq, _)| *seq == position) {
                first.extend_from_slice(&companions_on(wire, event));
            }
            metrics.resume(None);
        }
        None => {}
    }
    arrival.go_on(registered, resumed);
    registered.open_gate(head, position, Bytes::from(first));
    registered.node.registry.repeat_counts(&registered.user, registered.number, &moves);
    arrival.follow(registered, resumed, head.last);
}

fn entrant(identity: &Identity, resume: Option<&Resume>) -> Entrant {
    let asked = match resume {
        Some(Resume::From(position, _)) => Some(position.seq),
        Some(Resume::Invalid) | None => None,
    };
    let issued_at = if switches::off("revocation") { Some(i64::MAX) } else { identity.issued_at_s };
    Entrant { user: identity.user.clone(), issued_at, asked }
}

fn unavailable(error: BackboneError) -> Refusal {
    tracing::debug!(%error, "a connection could not join");
    Refusal::Close(CloseCode::BackboneUnavailable)
}
