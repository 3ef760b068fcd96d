//! Subscriptions of users' channels: who is wanted, what was confirmed, what is pushed.
//!
//! Hands payloads and interruptions to the [`crate::backbone::Inbox`]. Publishes nothing.

pub(in crate::backbone::redis) mod inbound;
pub(in crate::backbone::redis) mod pushed;
pub(in crate::backbone::redis) mod receiving;
pub(in crate::backbone::redis) mod subscriber;
pub(in crate::backbone::redis) mod subscriptions;
