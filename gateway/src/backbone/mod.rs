//! The backbone carries events between nodes, and holds each user's log and presence.
//! It offers [`Backbone`] and a trait per subject, on Redis and in one process, under one contract suite.
//! It never sees a socket: events come back through [`Inbox`]. Redis commands stand nowhere else.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shared::{ConversationId, Epoch, MessageId, NotificationId, Position, Timestamp, UserId};

use crate::switches;

mod batches;
mod erasure;
pub mod late;
pub mod local;
mod logins;
mod payload;
mod presence;
mod push_jobs;
mod queue;
mod rates;
pub mod redis;
mod redo;
mod revocations;
mod settings;
mod topics;

pub use erasure::Erasures;
pub use late::{LATE_MAX, Late, LateId};
pub use local::LocalBackbone;
pub use logins::{Logins, SessionId, Ticket};
pub use presence::{Presence, Presences};
pub use push_jobs::{PUSH_JOB_KEPT, PushJob, PushJobs};
pub use rates::{Draw, Grant, Rates};
pub use redis::RedisBackbone;
pub use revocations::Revocations;
pub use settings::Settings;
pub use topics::{TopicEvent, TopicPush, Topics};

/// The backbone is unavailable or did not answer in time. Whether the request was carried out is unknown.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the backbone is unavailable: {0}")]
pub struct BackboneError(pub String);

/// One event for one user.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The user whose log and channel it goes to.
    pub user: UserId,
    /// Newline-separated canonical envelopes without `seq`; shared by all recipients of an event.
    pub body: Bytes,
    /// Durable or not.
    pub kind: DeliveryKind,
}

/// Whether an event is logged.
#[derive(Debug, Clone)]
pub enum DeliveryKind {
    /// Published only: typing, presence.
    Ephemeral,
    /// Appended to the user's log, then published with its `seq`.
    Durable(Durable),
}

/// The part of a durable event beside its body.
#[derive(Debug, Clone)]
pub struct Durable {
    /// Identifies the event, so that a repeated append is recognised: `m<message id>` or `<outbox row>.<place>`.
    pub event_id: Arc<str>,
    /// The time of commit, by the store's clock.
    pub committed_at: Timestamp,
    /// The message that the event carries, if any.
    pub message: Option<CarriedMessage>,
    /// If no connection receives it, add a push job about the message; from this user.
    pub push: Option<UserId>,
    /// The users whom the message mentions, for the push job; `None` for none.
    pub mentions: Option<Arc<[UserId]>>,
    /// The kept notification that it is, if it is one.
    pub notification: Option<NotificationId>,
}

/// A message that an event carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarriedMessage {
    /// Its id.
    pub id: MessageId,
    /// Where it stands.
    pub conversation: ConversationId,
    /// Its place there.
    pub seq: u64,
}

/// The outcome of one delivery, each with the number of node subscriptions that received something. If that is 0 for a
/// message, it adds a push job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// Published, and appended if it is durable.
    To(u64),
    /// The log had the event already: it was published again, with its `seq`.
    Again(u64),
    /// A marker stands in the log in place of the event.
    Marked(u64),
}

impl DeliveryOutcome {
    /// Whether no node received it.
    fn reached_nobody(self) -> bool {
        let (Self::To(receivers) | Self::Again(receivers) | Self::Marked(receivers)) = self;
        receivers == 0
    }
}

/// The most entries of a log that an entry brings: the one at the position from which a client resumes, and those before it.
/// Their companions may not have come before the connection was lost.
pub const REPEATED_MAX: u32 = 16;

/// A user who is subscribed and enters.
#[derive(Debug, Clone)]
pub struct Entrant {
    /// The user.
    pub user: UserId,
    /// When the token was issued (unix seconds; `None` counts as old).
    pub issued_at: Option<i64>,
    /// The `seq` of the log entry to read, if any.
    pub asked: Option<u64>,
}

/// The outcome of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryOutcome {
    /// The token is revoked.
    Revoked,
    /// The user is in.
    At {
        /// The user's log.
        head: LogHead,
        /// The entry that was asked for and those before it, newest first, as [`LogPage::entries`] has them; at most
        /// [`REPEATED_MAX`]. Without the one that was asked for the log may have others.
        before: Vec<(u64, Bytes)>,
    },
}

/// The extent of a user's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogHead {
    /// The log's epoch.
    pub epoch: Epoch,
    /// The lowest `seq` from which a reader can go on without a hole: entries from `floor + 1` on are there.
    pub floor: u64,
    /// The `seq` of the last entry.
    pub last: u64,
}

/// A part of a user's log.
#[derive(Debug, Clone)]
pub struct LogPage {
    /// The extent of the log when the page was read.
    pub head: LogHead,
    /// Entries in order: the `seq` and the payload, as it was published (`seq` first).
    pub entries: Vec<(u64, Bytes)>,
}

/// An order to every node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum Control {
    /// Close the user's sockets.
    Disconnect {
        /// The user.
        user_id: UserId,
        /// Because the user's tokens were revoked.
        revoked: bool,
        /// Unix seconds of the revocation; missing in orders of earlier versions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        revoked_s: Option<i64>,
    },
    /// The conversation's members have changed: forget the members that are cached.
    MembersChanged {
        /// The conversation.
        conversation_id: ConversationId,
    },
}

/// The receiver of everything that arrives from the backbone. Calls come in the order of arrival and must not block.
pub trait Inbox: Send + Sync + 'static {
    /// A payload on a user's channel: newline-separated envelopes, not yet checked.
    fn user_event(&self, user: &str, payload: &[u8]);
    /// A payload on a large conversation's channel, not yet checked.
    fn topic_event(&self, conversation: &str, payload: &[u8]);
    /// A payload for everybody, not yet checked.
    fn broadcast(&self, payload: &[u8]);
    /// An order.
    fn control(&self, control: Control);
    /// The subscriptions were made anew after a loss: events may be missing since then.
    fn resubscribed(&self);
    /// The subscription of this user was made anew, and [`Inbox::resubscribed`] follows: nobody knows yet whether the events
    /// that arrive now are of the log from before. Called before any of them.
    fn user_in_doubt(&self, user: &str);
    /// The subscription of this user alone was made anew, because another server has it now, or its server was lost: events
    /// may be missing up to here. Called before anything that arrives through the new subscription.
    fn user_resubscribed(&self, user: &str);
    /// The same for the subscription of a large conversation.
    fn topic_resubscribed(&self, conversation: &str);
    /// Orders may be missing up to here.
    fn orders_missed(&self);
}

/// Whether the backbone carries events now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// A probe that this node published has come back through its own subscription within the last seconds.
    pub ready: bool,
    /// The fault, for `/readyz`.
    pub detail: String,
    /// The server's identity (Redis: the replication id), under which publications are marked.
    pub server: Option<Arc<str>>,
}

/// The calls that the backbone makes to its node.
#[async_trait]
pub trait BackboneHost: Send + Sync + 'static {
    /// Those of the users who were ever here, by the store: connected, or seen, or known by a name.
    async fn known_users(&self, users: &[UserId]) -> Result<Vec<UserId>, BackboneError>;

    /// This node leaves the server `left` for another: from now on, nothing counts as published there. This is called
    /// before anything arrives from the new server. So a user who gets `resync` finds what is missing in the store.
    async fn server_left(&self, left: &str) -> Result<(), BackboneError>;
}

/// The backbone: logs and channels of users, channels for all, and its own life. What it keeps besides has a trait of its
/// own, by subject: presence, logins, revocations, rates, push jobs, late messages.
///
/// A call fails at once while the backbone is unavailable; nothing is kept for later. An error that says that the reply was
/// lost leaves open whether the call was carried out: each method says what that means.
#[async_trait]
pub trait Backbone:
    Erasures + Late + Logins + Presences + PushJobs + Rates + Revocations + Topics + Send + Sync + 'static
{
    /// The kind and address, for the start-up log. It contains no password.
    fn describe(&self) -> String;

    /// Publishes deliveries in their order, and returns the outcome of each, in the same order. A durable one is appended to
    /// its user's log and published in one step. Durable ones to the same user keep their order, within a call and from
    /// one call to the next.
    ///
    /// At most 16,384 deliveries and 32 MiB of bodies wait at once. A call that would exceed this is an error and publishes
    /// nothing, unless nothing else waits. After any other error some deliveries may be published, and others not. The
    /// caller's outbox rows then stay unpublished, and are published again by [`Backbone::redo`].
    async fn publish(&self, deliveries: Vec<Delivery>) -> Result<Vec<DeliveryOutcome>, BackboneError>;

    /// Publishes durable deliveries that may have been published before, in their order, and returns the outcome of each.
    /// Nobody else may publish them meanwhile ([`Backbone::fence`]). The log of each user is read once, and gives one of
    /// three answers (NOLOSS.md, C1):
    ///
    /// - The log has the event: it is published again, with its `seq`.
    /// - The log certainly never had it: it is appended. So is an event that is state and that no request gives back by id.
    /// - It can't be told: a marker takes the place of the message or kept notification, a durable
    ///   `resync {reason: "trimmed"}` that names it. All of a user in one call have one marker.
    async fn redo(
        &self,
        deliveries: Vec<Delivery>,
    ) -> Result<Vec<Result<DeliveryOutcome, BackboneError>>, BackboneError>;

    /// Subscribes this node to the user's channel, and returns when the server has confirmed it, within 3 s: whatever is
    /// published from then on arrives. Calls are counted: each that succeeds needs one [`Backbone::unsubscribe`].
    ///
    /// A call that fails, or whose future is dropped, takes its count back by itself.
    async fn subscribe(&self, user: &UserId) -> Result<(), BackboneError>;

    /// Takes one [`Backbone::subscribe`] back. The channel is left 2 s after the last, so that a client which reconnects
    /// finds it. When the channel is left, and no node is subscribed for the user, the user is made offline (see
    /// [`Presences::departed`]).
    fn unsubscribe(&self, user: &UserId);

    /// Opens the user's log if there is none, and returns what it holds. It lives for [`Settings::resume_seconds`] after the
    /// last sign of life. May be repeated after a lost reply.
    async fn open(&self, user: &UserId) -> Result<LogHead, BackboneError>;

    /// Lets in a user who is subscribed: checks the token ([`Revocations::is_revoked`]), opens the log ([`Backbone::open`])
    /// and reads the entry that is asked for and some before it, together. May be repeated after a lost reply.
    async fn enter(&self, entrant: Entrant) -> Result<EntryOutcome, BackboneError>;

    /// Reads at most `limit` entries of the user's log after the `seq` `after`, in order. A log that doesn't exist is opened.
    /// Of the events that are older than [`Settings::resume_seconds`] the log loses all but the last, before it is read.
    /// May be repeated after a lost reply.
    async fn read(&self, user: &UserId, after: u64, limit: u32) -> Result<LogPage, BackboneError>;

    /// Publishes newline-separated envelopes to every socket of every node, this one included. They are not logged: a node
    /// that is disconnected at that moment misses them. After a lost reply they may have been published.
    async fn broadcast(&self, body: Bytes) -> Result<(), BackboneError>;

    /// Sends an order to every node, this one included. It is not kept: a node that was disconnected gets
    /// [`Inbox::orders_missed`] or [`Inbox::resubscribed`] instead. May be repeated after a lost reply.
    async fn control(&self, control: &Control) -> Result<(), BackboneError>;

    /// Ends what an earlier boot, or an earlier connection, of `owner` (`<node>:<boot id>`) may still have under way:
    /// none of its commands is carried out after this returns. Its rows may be published again only then (NOLOSS.md,
    /// A7). This node's living connection is left alone. May be repeated after a lost reply.
    async fn fence(&self, owner: &str) -> Result<(), BackboneError>;

    /// Tells the backbone that the store knew another server until now (NOLOSS.md, A3): for 60 s, appends open a log
    /// where none is. The backbone does the same by itself when it sees the server change.
    fn note_new_server(&self);

    /// Gives up the connections, because the other nodes have left this node's server. The next connection may lead to the
    /// server where they are.
    fn leave_server(&self);

    /// Since when the connection is there that carries commands; in a Cluster, the youngest of those to its masters. `None`
    /// while there is none. A commit that began before it may have been published by others meanwhile (NOLOSS.md, C9).
    fn connected_since(&self) -> Option<Instant>;

    /// How many nodes are connected, this one included. The number is at most a few seconds old, and at least 1.
    fn nodes(&self) -> u32;

    /// Whether it carries events now. Answers at once, from the last probe.
    fn health(&self) -> Health;

    /// Publishes the deliveries that were handed over, then ends the backbone's tasks. Called once, last.
    async fn close(&self);
}

/// Whether a client can resume after the position that it asks for; the error says why not.
pub fn check_resume(asked: &Position, head: &LogHead) -> Result<(), shared::event::ResyncReason> {
    use shared::event::ResyncReason;
    if asked.epoch != head.epoch {
        Err(ResyncReason::Epoch)
    } else if asked.seq > head.last {
        Err(ResyncReason::Future)
    } else if !switches::off("resume-check") && (asked.seq < head.floor || (asked.seq == head.floor && head.floor > 0))
    {
        // The asked event itself has to be there as well, because its companions are repeated.
        Err(ResyncReason::Trimmed)
    } else {
        Ok(())
    }
}
