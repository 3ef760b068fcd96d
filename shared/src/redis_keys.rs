//! The names of all Redis keys and channels. Ids are checked, so they can stand here as they are.

use crate::UserId;

/// The channel that carries every outbound event for `user`.
#[must_use]
pub fn user_channel(user: &UserId) -> String {
    format!("{USER_CHANNEL_PREFIX}{user}")
}

/// The prefix of [`user_channel`].
pub const USER_CHANNEL_PREFIX: &str = "chat:user:";

/// The stream of a user's durable events; in the slot of the user's channel.
#[must_use]
pub fn log_key(user: &UserId) -> String {
    format!("chat:log:{{chat:user:{user}}}")
}

/// The hash of a user's unread counts; in the slot of the user's channel.
#[must_use]
pub fn unread_key(user: &UserId) -> String {
    format!("chat:unread:{{chat:user:{user}}}")
}

/// Unix seconds of the user's last sign of life; there only while they are online.
#[must_use]
pub fn online_key(user: &UserId) -> String {
    format!("online:{user}")
}

/// Unix milliseconds at which the user's last connection closed.
#[must_use]
pub fn last_seen_key(user: &UserId) -> String {
    format!("chat:last_seen:{user}")
}

/// Unix seconds up to which the user's tokens are invalid.
#[must_use]
pub fn revoked_key(user: &UserId) -> String {
    format!("chat:revoked:{user}")
}

/// An application's value for a session cookie: a user id, or JSON. The id has to be checked.
#[must_use]
pub fn session_key(session: &str) -> String {
    format!("session:{session}")
}

/// The identity behind a single-use ticket. The ticket has to be checked.
#[must_use]
pub fn ticket_key(ticket: &str) -> String {
    format!("chat:ticket:{ticket}")
}

/// When the user's allowance of commands is whole again, in microseconds of Redis' clock.
#[must_use]
pub fn rate_key(user: &UserId) -> String {
    format!("chat:rate:{user}")
}

/// A node's sign of life, and the channel of its probe.
#[must_use]
pub fn node_key(node: &str) -> String {
    format!("chat:node:{node}")
}

/// Users that were announced online, by the unix milliseconds at which their offline check is due.
pub const OFFLINE_DUE: &str = "chat:offline_due";

/// The channel for everyone.
pub const ALL_CHANNEL: &str = "chat:all";

/// The channel for orders to all nodes.
pub const CONTROL_CHANNEL: &str = "chat:control";

/// The stream of push jobs for users without a connection.
pub const PUSH_STREAM: &str = "chat:push";

/// The stream of messages that wait for the store.
pub const LATE_STREAM: &str = "chat:late";

/// The node that stores late messages at the moment.
pub const LATE_LEASE: &str = "chat:late:lease";

/// The stream of push jobs that could not be done.
pub const PUSH_DEAD_STREAM: &str = "chat:push:dead";
