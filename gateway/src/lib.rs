//! Parley's gateway: a stateless WebSocket chat node.

pub mod backbone;
pub mod store;
pub mod ws;
