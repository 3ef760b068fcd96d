//! From a checked token to a live connection: register, subscribe, read the log's head, open the gate.
//!
//! The order closes the seam (NOLOSS B1): events pushed before the gate opens are dropped, but noted, and the log has them.

use std::sync::Arc;
use std::time::Duration;

use shared::command::Resume;
use shared::event::ResyncReason;
use shared::{CloseCode, Dialect, Epoch, Event, Timestamp, UserId};

use crate::auth::{AuthError, Guest, Identity, TokenRefusal};
use crate::backbone::{BackboneError, Entrant, EntryOutcome, LogHead, check_resume};
use crate::clock::coarse_s;
use crate::delivery::frames::{companions_on, event_on, reply_on};
use crate::delivery::heal::resync;
use crate::delivery::registry::JoinOutcome;
use crate::delivery::send_queue::SendQueue;
use crate::node::Node;
use crate::switches;

/// How long a connection waits for its turn before it is sent away.
const TURN_WITHIN: Duration = Duration::from_secs(5);

/// Why a connection with a valid token is closed all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The token is worthless, or nobody can say whether it is; the client is told why.
    Auth(AuthError),
    /// Something else.
    Close(CloseCode),
}

/// A live connection. Dropping it takes the socket out of the registry, whatever ended the session.
pub(super) struct LiveConnection {
    node: Arc<Node>,
    user: UserId,
    connection: u64,
    subscribed: bool,
    /// What the connection stands on, if that is a session.
    guest: Option<Box<Guest>>,
    admin: bool,
    /// Coarse seconds of when it became a live one.
    opened_s: Option<u32>,
    queue: Arc<SendQueue>,
}

impl LiveConnection {
    /// Makes the connection a live one and queues `auth_success`.
    pub(super) async fn join(
        node: Arc<Node>,
        identity: Identity,
        resume: Option<Resume>,
        connection: u64,
        queue: Arc<SendQueue>,
    ) -> Result<Self, Refusal> {
        let backbone = Arc::clone(node.chat.backbone());
        let user = identity.user.clone();
        let turn = tokio::time::timeout(TURN_WITHIN, node.joining.acquire());
        let Ok(Ok(_turn)) = (if switches::off("turns") { Ok(Ok(None)) } else { turn.await.map(|turn| turn.map(Some)) })
        else {
            return Err(Refusal::Close(CloseCode::OverCapacity));
        };
        if node.registry.add(&user, connection, Arc::clone(&queue), expiry_s(&identity)).is_err() {
            return Err(Refusal::Close(CloseCode::ConnectionLimit));
        }
        let mut membership = Self {
            node: Arc::clone(&node),
            user: user.clone(),
            connection,
            subscribed: false,
            guest: None,
            admin: identity.admin,
            opened_s: None,
            queue: Arc::clone(&queue),
        };
        membership.stands_on(&identity);
        // Counted before it is confirmed: if this future is dropped meanwhile, `Drop` takes the subscription back.
        membership.subscribed = true;
        if let Err(error) = backbone.subscribe(&user).await {
            membership.subscribed = false;
            return Err(unavailable(error));
        }
        // Now that the socket stands in the registry: an order to close comes after the revocation that it goes with, so
        // either it finds the socket, or this finds the revocation.
        match backbone.enter(entrant(&identity, resume.as_ref())).await.map_err(unavailable)? {
            EntryOutcome::Revoked => return Err(Refusal::Auth(TokenRefusal::Revoked.into())),
            EntryOutcome::At { head, event } => membership.open_gate(&head, resume.as_ref(), event.as_deref(), &queue),
        }
        node.metrics.handshake("accepted");
        membership.opened_s = Some(coarse_s());
        let dialect = queue.wire().dialect.subprotocol();
        node.audit.connection_opened(&user, membership.connection_id(), dialect);
        tracing::debug!(%user, connection, resume = resume.is_some(), "joined");
        if let Some(username) = identity.username {
            node.chat.remember_username(&user, username);
        }
        node.tasks.spawn(greet(Arc::clone(&node), user, queue));
        Ok(membership)
    }

    /// Whose connection it is.
    #[must_use]
    pub(super) fn user(&self) -> &UserId {
        &self.user
    }

    /// Whether the token gave admin rights.
    #[must_use]
    pub(super) fn is_admin(&self) -> bool {
        self.admin
    }

    /// What is looked at again while the connection lasts.
    fn stands_on(&mut self, identity: &Identity) {
        self.node.registry.set_issued(&self.user, self.connection, identity.issued_at_s);
        let begin = |session| Box::new(self.node.sessions.begin(self.connection, &self.user, session));
        // The one before goes first: both stand under the same connection.
        self.guest = None;
        self.guest = identity.session.clone().map(begin);
    }

    /// A fresh token came: the connection lasts as long as that.
    pub(super) fn refresh(&mut self, identity: &Identity, reference: Option<&str>) {
        self.admin = identity.admin;
        self.node.registry.set_expiry(&self.user, self.connection, expiry_s(identity));
        self.stands_on(identity);
        let Some(epoch) = self.node.registry.epoch(self.user.as_str()) else { return };
        self.node.registry.with_queue(&self.user, self.connection, |queue| {
            queue
                .push_reply_at(|position| reply_on(queue.wire(), &self.auth_success(epoch, position, true), reference));
        });
    }

    /// `event` is the one at the asked position: the client may have got it without its companions.
    fn open_gate(&self, head: &LogHead, resume: Option<&Resume>, event: Option<&[u8]>, queue: &SendQueue) {
        let asked = match resume {
            None => None,
            Some(Resume::Invalid) => Some(Err(ResyncReason::Invalid)),
            Some(Resume::From(position)) => Some(check_resume(position, head).map(|()| position.seq)),
        };
        let position = match asked {
            Some(Ok(seq)) => seq,
            Some(Err(_)) | None => head.last,
        };
        let resumed = matches!(asked, Some(Ok(_)));
        let wire = queue.wire();
        let mut first = event_on(wire, &self.auth_success(head.epoch.clone(), position, resumed)).to_vec();
        match asked {
            Some(Err(reason)) => {
                first.extend_from_slice(resync(reason, &head.epoch, head.last).on(wire));
                self.node.metrics.resync(reason);
                self.node.metrics.resume(Some(reason));
            }
            Some(Ok(_)) => {
                if let Some(event) = event.filter(|_| !switches::off("companions")) {
                    first.extend_from_slice(&companions_on(wire, event));
                }
                self.node.metrics.resume(None);
            }
            None => {}
        }
        loop {
            match self.node.registry.join(&self.user, self.connection, &head.epoch, position, first.clone().into()) {
                JoinOutcome::At { gap } => {
                    if gap || position < head.last {
                        self.node.fanout.request_heal(&self.user);
                    }
                    return;
                }
                JoinOutcome::OtherEpoch => {
                    // The log was opened anew and this connection sees it first.
                    let notice = resync(ResyncReason::Epoch, &head.epoch, head.last);
                    if self.node.registry.change_epoch(self.user.as_str(), &head.epoch, head.last, &notice) {
                        self.node.metrics.resync(ResyncReason::Epoch);
                    }
                }
                JoinOutcome::Gone => {
                    queue.close(CloseCode::InternalError);
                    return;
                }
            }
        }
    }

    fn connection_id(&self) -> String {
        self.node.connection_id(self.connection)
    }

    fn auth_success(&self, epoch: Epoch, seq: u64, resumed: bool) -> Event {
        Event::AuthSuccess {
            user_id: self.user.clone(),
            connection_id: self.connection_id(),
            connected_at: Timestamp::now(),
            epoch,
            seq,
            resumed,
            heartbeat_seconds: self.node.clocks.heartbeat.as_secs(),
        }
    }
}

impl Drop for LiveConnection {
    fn drop(&mut self) {
        let last = self.node.registry.remove(&self.user, self.connection);
        if let Some(opened_s) = self.opened_s {
            let open_s = coarse_s().saturating_sub(opened_s);
            self.node.audit.connection_closed(&self.user, self.connection_id(), open_s, self.queue.closing());
        }
        if self.subscribed {
            self.node.chat.backbone().unsubscribe(&self.user);
        }
        if last && self.subscribed {
            let (node, user) = (Arc::clone(&self.node), self.user.clone());
            self.node.tasks.spawn(async move { node.chat.departed(&user).await });
        }
    }
}

/// What a new connection is told after `auth_success`, and others of it. The store may be away: then it goes without.
async fn greet(node: Arc<Node>, user: UserId, queue: Arc<SendQueue>) {
    node.chat.flush_usernames().await;
    // The flat dialects have no frame for it.
    let status = queue.wire().dialect == Dialect::Chat;
    match node.chat.arrived(&user, status).await {
        Ok(Some(event)) => drop(queue.push_reply(event_on(queue.wire(), &event))),
        Ok(None) => {}
        Err(error) => tracing::debug!(%user, %error, "an arrival could not be told"),
    }
}

/// Coarse seconds at which the token expires.
pub(super) fn expiry_s(identity: &Identity) -> u32 {
    let left_s = identity.expires_at_s.saturating_sub(Timestamp::now().unix_seconds());
    coarse_s().saturating_add(u32::try_from(left_s.max(0)).unwrap_or(u32::MAX))
}

fn entrant(identity: &Identity, resume: Option<&Resume>) -> Entrant {
    let asked = match resume {
        Some(Resume::From(position)) => Some(position.seq),
        Some(Resume::Invalid) | None => None,
    };
    let issued_at = if switches::off("revocation") { Some(i64::MAX) } else { identity.issued_at_s };
    Entrant { user: identity.user.clone(), issued_at, asked }
}

fn unavailable(error: BackboneError) -> Refusal {
    tracing::debug!(%error, "a connection could not join");
    Refusal::Close(CloseCode::BackboneUnavailable)
}
