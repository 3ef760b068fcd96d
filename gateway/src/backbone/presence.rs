//! Presence: a user is online as long as some node renews a sign of life for them.
//!
//! Every sign of life expires, so users of a node that dies go offline by themselves, some seconds later.

use async_trait::async_trait;
use shared::{Timestamp, UserId};

use super::BackboneError;

/// A user's presence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// Connected somewhere.
    pub online: bool,
    /// When the last connection closed, if known.
    pub last_seen: Option<Timestamp>,
}

/// The users' presence, shared by all nodes.
///
/// Every call may be repeated after a lost reply. Where it isn't, the next sign of life makes up for the one that is missing,
/// and a missing departure takes effect when the last sign of life expires.
#[async_trait]
pub trait Presences: Send + Sync + 'static {
    /// Gives the first sign of life of a user whose socket is subscribed. It holds for
    /// [`Settings::online_ttl_seconds`](super::Settings).
    ///
    /// `true` if the user has not been announced online yet: the caller announces it. After a lost reply the user may count
    /// as announced, so that nobody announces them.
    async fn arrived(&self, user: &UserId) -> Result<bool, BackboneError>;

    /// Gives the next sign of life of these users, and prolongs their logs. A user without a subscription
    /// on this node is left out, so that a user who has left meanwhile doesn't come back online.
    ///
    /// After an error some of them may be refreshed, and others not.
    async fn refresh(&self, users: &[UserId]) -> Result<(), BackboneError>;

    /// The user's last socket on this node has closed, and [`Backbone::unsubscribe`](super::Backbone::unsubscribe) was
    /// called for it. If no other node is subscribed for the user, this makes the user offline, leaves the user's channel at
    /// once, and makes the offline check due after [`Settings::offline_grace_seconds`](super::Settings).
    ///
    /// After an error the user goes offline later: when the channel is left, or when the last sign of life expires.
    async fn departed(&self, user: &UserId) -> Result<(), BackboneError>;

    /// Takes at most `limit` users whose offline check was due and who are offline indeed, each with the time at which they
    /// were seen last. Each user is given to one caller only: the caller announces them.
    ///
    /// Users in a reply that was lost are not given out again, and not announced.
    async fn take_offline(&self, limit: u32) -> Result<Vec<(UserId, Timestamp)>, BackboneError>;

    /// The presence of each of these users, in the same order. An unknown user is offline, and was never seen.
    async fn presence(&self, users: &[UserId]) -> Result<Vec<Presence>, BackboneError>;
}
