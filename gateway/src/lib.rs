//! Parley's gateway: a stateless WebSocket chat node. `app` puts the parts together; imports go down only.

pub mod app;
pub mod auth;
pub mod backbone;
pub mod chat;
pub mod config;
pub mod dispatch;
pub mod envelope;
pub mod fanout;
pub mod heal;
pub mod http;
pub mod metrics;
pub mod pulse;
pub mod registry;
pub mod shutdown;
pub mod store;
pub mod ws;
