//! A socket's or a poll's place in the registry and among the subscribers of its user's channel.
//!
//! [`Registered`] keeps the order that closes the seam between log and push (NOLOSS.md, B1): in the registry first,
//! then subscribed, then the log is read, then the gate opens. Dropping it undoes all of that, at whatever step.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use shared::event::ResyncReason;
use shared::{CloseCode, Epoch, Event, Timestamp, UserId};

use crate::auth::{Guest, Identity};
use crate::backbone::{BackboneError, LogHead};
use crate::clock::coarse_s;
use crate::delivery::heal::resync;
use crate::delivery::registry::JoinOutcome;
use crate::delivery::send_queue::SendQueue;
use crate::node::Node;

/// Names of what a client may use that not every gateway has; `shared/PROTOCOL.md` explains them.
const FEATURES: [&str; 2] = ["stream", "large"];
/// The same, named where a backend decides about messages.
const HOOKS: &str = "hooks";

/// A user's queue in the registry. Dropping it takes the queue out, takes the subscription back, and announces the
/// departure if it was the user's last one here.
pub(super) struct Registered {
    /// The node whose registry and backbone hold the place; shared by all sessions.
    pub(super) node: Arc<Node>,
    /// The registry's key, with `number`; owned, because `drop` needs it.
    pub(super) user: UserId,
    /// The connection's number on this node.
    pub(super) number: u64,
    /// Shared with the registry, which pushes into it, and with the socket or poll that empties it.
    pub(super) queue: Arc<SendQueue>,
    /// Whether the backbone counts this place as a subscriber: written by `subscribe` alone, read by `drop`.
    subscribed: bool,
}

impl Registered {
    /// Puts the queue into the registry, its gate closed: pushes from now on are noted and not kept. `None` if the
    /// user has as many sockets as the limit allows.
    pub(super) fn add(
        node: &Arc<Node>,
        user: &UserId,
        number: u64,
        queue: &Arc<SendQueue>,
        expires_s: u32,
    ) -> Option<Self> {
        node.registry.add(user, number, Arc::clone(queue), expires_s).ok()?;
        Some(Self { node: Arc::clone(node), user: user.clone(), number, queue: Arc::clone(queue), subscribed: false })
    }

    /// Subscribes to the user's channel; done when the backbone has confirmed it.
    pub(super) async fn subscribe(&mut self) -> Result<(), BackboneError> {
        // Counted before it is confirmed: if this future is dropped meanwhile, `drop` takes the subscription back.
        self.subscribed = true;
        let confirmed = self.node.backbone.subscribe(&self.user).await;
        self.subscribed = confirmed.is_ok();
        confirmed
    }

    /// Opens the gate at `position`, and queues `first` before all else. Events after `position` come from the log if some
    /// were pushed already, and are pushed from here on.
    pub(super) fn open_gate(&self, head: &LogHead, position: u64, first: Bytes) {
        let registry = &self.node.registry;
        loop {
            match registry.join(&self.user, self.number, &head.epoch, position, first.clone()) {
                JoinOutcome::At { gap } => {
                    if gap || position < head.last {
                        self.node.fanout.request_heal(&self.user);
                    }
                    return;
                }
                JoinOutcome::OtherEpoch => {
                    // The log was opened anew, and this is the first place of the user to see it.
                    let notice = resync(ResyncReason::Epoch, &head.epoch, head.last);
                    if registry.change_epoch(self.user.as_str(), &head.epoch, head.last, &notice) {
                        self.node.metrics.resync(ResyncReason::Epoch);
                    }
                }
                JoinOutcome::Gone => {
                    self.queue.close(CloseCode::InternalError);
                    return;
                }
            }
        }
    }

    /// Records the connection's credential: the time at which its token was issued, and its session, if it has one.
    /// The session is re-checked until the guest is dropped.
    pub(super) fn watch_credential(&self, identity: &Identity) -> Option<Box<Guest>> {
        self.node.registry.set_issued(&self.user, self.number, identity.issued_at_s);
        let session = identity.session.clone()?;
        Some(Box::new(self.node.sessions.begin(self.number, &self.user, session)))
    }

    /// The connection's id, as clients and operators see it.
    pub(super) fn connection_id(&self) -> String {
        self.node.connection_id(self.number)
    }

    fn features(&self) -> Vec<Cow<'static, str>> {
        let hooks = self.node.chat.has_hook().then_some(HOOKS);
        FEATURES.into_iter().chain(hooks).map(Into::into).collect()
    }

    /// The event that tells a client who it is and at which position of the log.
    pub(super) fn auth_success(&self, epoch: Epoch, seq: u64, resumed: bool) -> Event {
        Event::AuthSuccess {
            user_id: self.user.clone(),
            connection_id: self.connection_id(),
            connected_at: Timestamp::now(),
            epoch,
            seq,
            resumed,
            heartbeat_seconds: self.node.clocks.heartbeat.as_secs(),
            version: env!("CARGO_PKG_VERSION").into(),
            features: self.features(),
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.queue.liveness().retire();
        let last = self.node.registry.remove(&self.user, self.number);
        if !self.subscribed {
            return;
        }
        self.node.backbone.unsubscribe(&self.user);
        if last {
            let (node, user) = (Arc::clone(&self.node), self.user.clone());
            self.node.tasks.spawn(async move { node.chat.departed(&user).await });
        }
    }
}

/// Coarse seconds at which the token expires.
pub(super) fn expiry_s(identity: &Identity) -> u32 {
    let left_s = identity.expires_at_s.saturating_sub(Timestamp::now().unix_seconds());
    coarse_s().saturating_add(u32::try_from(left_s.max(0)).unwrap_or(u32::MAX))
}
