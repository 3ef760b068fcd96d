//! The commands that a node sends to Redis: appends, entering, logins, rates, jobs. A file per subject.
//! It implements the traits of `backbone` for [`super::RedisBackbone`].
//! It reaches Redis only through `link`, and never keeps a connection.

mod appends;
pub(in crate::backbone::redis) mod entrance;
mod erasure;
mod late;
mod logins;
mod presence;
pub(in crate::backbone::redis) mod publisher;
mod push_adding;
mod push_entry;
mod push_jobs;
mod rates;
pub(in crate::backbone::redis) mod redo;
pub(in crate::backbone::redis) mod repeated;
mod revocations;
mod topics;
mod values;
