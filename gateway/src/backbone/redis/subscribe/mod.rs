//! Subscriptions to the channels of users and of large conversations: which are wanted, which are confirmed, and the payloads
//! that Redis pushes.
//! It hands payloads and interruptions to [`crate::backbone::Inbox`].
//! It never publishes, and never checks a payload.

pub(in crate::backbone::redis) mod channel;
pub(in crate::backbone::redis) mod inbound;
pub(in crate::backbone::redis) mod pushed;
pub(in crate::backbone::redis) mod receiving;
pub(in crate::backbone::redis) mod subscriber;
pub(in crate::backbone::redis) mod subscriptions;
