//! The backbone: how an event published on any node reaches the sockets of a user on every node.
//!
//! Two implementations, Redis and local (one process), under one contract suite. Senders only publish here; what arrives
//! comes back through [`Inbox`]. Redis commands stand only below this folder.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shared::{ConversationId, Epoch, MessageId, Position, Timestamp, UserId};

use crate::store::{UnreadCount, UnreadMove};
use crate::switches;

mod batches;
pub mod late;
pub mod local;
mod logins;
mod payload;
mod push_jobs;
mod queue;
mod rates;
pub mod redis;
mod settings;

pub use late::{LATE_MAX, Late, LateId};
pub use local::LocalBackbone;
pub use logins::{Logins, SessionId, Ticket};
pub use push_jobs::{PUSH_JOB_KEPT, PushJob, PushJobs};
pub use rates::{Draw, Grant, Rates};
pub use redis::RedisBackbone;
pub use settings::Settings;

/// The backbone is away, or did not answer in time; whether the request was carried out is unknown.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the backbone is unavailable: {0}")]
pub struct BackboneError(pub String);

/// One event for one user.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// For whom.
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

/// What a durable event carries besides its body.
#[derive(Debug, Clone)]
pub struct Durable {
    /// By which a repeated append is recognised: `m<message id>` or `<outbox row>.<place>`.
    pub event_id: Arc<str>,
    /// The time of commit, by the store's clock.
    pub committed_at: Timestamp,
    /// The unread count that moves with it.
    pub unread: Option<UnreadMove>,
    /// Publish with [`Append::Once`] unless nothing can have been published before.
    pub append: Append,
    /// The message that it brings, if any.
    pub message: Option<MessageId>,
    /// If nobody receives it, add a push job about the message.
    pub push: bool,
}

/// How an append treats what may be there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Append {
    /// The first try: appended without looking.
    First,
    /// A redo: appended unless the log has an entry with this event id (NOLOSS B3, B4).
    Once,
}

/// What became of one delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// Published; this many node subscriptions received it. 0 for a durable event adds a push job.
    To(u64),
    /// The redo found it in the log: nothing was done.
    Already,
}

/// Somebody who is subscribed and wants to come in.
#[derive(Debug, Clone)]
pub struct Entrant {
    /// Who.
    pub user: UserId,
    /// When the token was issued (unix seconds; `None` counts as old).
    pub issued_at: Option<i64>,
    /// The `seq` of an entry of the log that is asked for.
    pub asked: Option<u64>,
}

/// What they find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryOutcome {
    /// Their token was revoked.
    Revoked,
    /// They are in.
    At {
        /// Their log.
        head: LogHead,
        /// The payload of the entry that was asked for, if the log has it.
        event: Option<Bytes>,
    },
}

/// What a user's log holds.
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
    /// What the log held when the page was read.
    pub head: LogHead,
    /// Entries in order: the `seq` and the payload, as it was published (`seq` first).
    pub entries: Vec<(u64, Bytes)>,
}

/// A user's presence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// Connected somewhere.
    pub online: bool,
    /// When the last connection closed, if known.
    pub last_seen: Option<Timestamp>,
}

/// An order to every node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum Control {
    /// Close the user's sockets.
    Disconnect {
        /// Whose.
        user_id: UserId,
        /// With 4002 instead of 4202.
        revoked: bool,
    },
    /// Who is in the conversation has changed: forget it.
    MembersChanged {
        /// Which.
        conversation_id: ConversationId,
    },
}

/// What arrives from the backbone. Calls are made in the order of arrival and must not block.
pub trait Inbox: Send + Sync + 'static {
    /// A payload on a user's channel: newline-separated envelopes, not yet checked.
    fn user_event(&self, user: &str, payload: &[u8]);
    /// A payload for everybody, not yet checked.
    fn broadcast(&self, payload: &[u8]);
    /// An order.
    fn control(&self, control: Control);
    /// The subscriptions are lost: from now on pushes may be missing, also of those that still arrive.
    fn interrupted(&self);
    /// The subscriptions were made anew after a loss: pushes may be missing since then.
    fn resubscribed(&self);
    /// The subscription of this user alone was made anew, for another server has it now, or its server was lost: pushes may
    /// be missing up to here. Said before anything that comes through the new one.
    fn user_resubscribed(&self, user: &str);
    /// Orders may be missing up to here.
    fn orders_missed(&self);
}

/// Whether the backbone carries events now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// A probe that this node published has come back through its own subscription within the last seconds.
    pub ready: bool,
    /// What is wrong, for `/readyz`.
    pub detail: String,
    /// The server's identity (Redis: the replication id), under which publications are marked.
    pub server: Option<Arc<str>>,
}

/// What the backbone asks of the store, to rebuild unread counts that it has not, and tells it.
#[async_trait]
pub trait BackboneHost: Send + Sync + 'static {
    /// All of the user's counts.
    async fn unread(&self, user: &UserId) -> Result<Vec<UnreadCount>, BackboneError>;

    /// This node leaves the server `left` for another: nothing counts as published there any more. Said before anything
    /// that the new server carries is told to anybody, so that who is told `resync` finds in the store what they lack.
    async fn server_left(&self, left: &str) -> Result<(), BackboneError>;
}

/// The backbone.
#[async_trait]
pub trait Backbone: Late + Logins + PushJobs + Rates + Send + Sync + 'static {
    /// What it is and where, for the start-up log: no password.
    fn describe(&self) -> String;

    /// Publishes in order and says what became of each. A queue over its bound, or a backbone that is away, is an error at
    /// once, for all of them; the caller's outbox row then stays unpublished.
    async fn publish(&self, deliveries: Vec<Delivery>) -> Result<Vec<DeliveryOutcome>, BackboneError>;

    /// Subscribes to a user's channel; returns when that is confirmed. Counted: each call wants one [`Backbone::unsubscribe`].
    async fn subscribe(&self, user: &UserId) -> Result<(), BackboneError>;

    /// Ends one [`Backbone::subscribe`]; the channel is left a while (2 s) after the last. When it is left, and the user has
    /// no subscription on any node, the user is made offline (see [`Backbone::departed`]).
    fn unsubscribe(&self, user: &UserId);

    /// Opens the user's log if there is none, and says what it holds.
    async fn open(&self, user: &UserId) -> Result<LogHead, BackboneError>;

    /// Lets in somebody who is subscribed: unless the token was revoked ([`Backbone::is_revoked`]), opens their log
    /// ([`Backbone::open`]) and gives the entry that they ask for.
    async fn enter(&self, entrant: Entrant) -> Result<EntryOutcome, BackboneError>;

    /// Reads at most `limit` entries after `seq`.
    async fn read(&self, user: &UserId, after: u64, limit: u32) -> Result<LogPage, BackboneError>;

    /// Marks a user online now that they are subscribed: whether that is news (they weren't announced yet).
    async fn arrived(&self, user: &UserId) -> Result<bool, BackboneError>;

    /// Refreshes `online:<id>`, and the lifetime of the logs, of those users that are subscribed here at that moment: one
    /// who has left meanwhile must not come back to life.
    async fn refresh(&self, users: &[UserId]) -> Result<(), BackboneError>;

    /// The user's last local socket has closed, and [`Backbone::unsubscribe`] was called for it: if no other node is
    /// subscribed for them, they are offline and their channel is left at once, and their offline check is due after the
    /// grace.
    async fn departed(&self, user: &UserId) -> Result<(), BackboneError>;

    /// Takes users whose offline check was due and who are offline indeed: announce them. At most `limit`.
    async fn take_offline(&self, limit: u32) -> Result<Vec<(UserId, Timestamp)>, BackboneError>;

    /// Who is online, in the order asked.
    async fn presence(&self, users: &[UserId]) -> Result<Vec<Presence>, BackboneError>;

    /// Publishes envelopes to every socket of every node.
    async fn broadcast(&self, body: Bytes) -> Result<(), BackboneError>;

    /// Gives an order to every node, this one included.
    async fn control(&self, control: &Control) -> Result<(), BackboneError>;

    /// Makes the user's older tokens worthless; the time (unix seconds) up to which.
    async fn revoke(&self, user: &UserId) -> Result<i64, BackboneError>;

    /// Whether a token issued at `issued_at` (unix seconds; `None` counts as old) was revoked.
    async fn is_revoked(&self, user: &UserId, issued_at: Option<i64>) -> Result<bool, BackboneError>;

    /// Ends what an earlier boot, or an earlier connection, of `owner` (`<node>:<boot id>`) may still have under way, before
    /// its rows are published again (NOLOSS M3). What this node's living connection carries is left alone.
    async fn fence(&self, owner: &str) -> Result<(), BackboneError>;

    /// The store knew another server until now (NOLOSS M2): for 60 s, appends open a log where none is. The backbone does
    /// the same by itself when it sees the server change.
    fn note_new_server(&self);

    /// The other nodes have left this node's server: connect anew, perhaps to the one where they are.
    fn leave_server(&self);

    /// How many nodes it has, this one included, as far as is known: some seconds ago.
    fn nodes(&self) -> u32;

    /// Whether it carries events now.
    fn health(&self) -> Health;

    /// Stops its tasks after what was handed over is published.
    async fn close(&self);
}

/// The asked position cannot be served: why.
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
