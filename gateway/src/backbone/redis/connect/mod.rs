//! Where Redis is, and the two connections to each server: found, opened, watched, replaced.
//!
//! Offers a living [`server::Server`] to `link`. Sends no command of its own beside probes and fences.

pub(in crate::backbone::redis) mod connection;
pub(in crate::backbone::redis) mod discovery;
pub(in crate::backbone::redis) mod sentinel;
pub(in crate::backbone::redis) mod server;
pub(in crate::backbone::redis) mod supervisor;
pub(in crate::backbone::redis) mod transport;
