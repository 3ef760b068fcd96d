//! The connections to each Redis server: found, opened, probed and replaced.
//! It offers a connected [`server::Server`] to `link`.
//! It never sends a command of the node's own, only probes and fences.

pub(in crate::backbone::redis) mod connection;
pub(in crate::backbone::redis) mod discovery;
pub(in crate::backbone::redis) mod rights;
pub(in crate::backbone::redis) mod sentinel;
pub(in crate::backbone::redis) mod server;
pub(in crate::backbone::redis) mod supervisor;
pub(in crate::backbone::redis) mod transport;
