//! Parley's gateway: a stateless WebSocket chat node.

pub mod auth;
pub mod backbone;
pub mod config;
pub mod store;
pub mod ws;
