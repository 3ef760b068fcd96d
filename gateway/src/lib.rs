//! Parley's gateway: a stateless WebSocket chat node. `app` puts the parts together; imports go down only.

pub mod app;
pub mod audit;
pub mod auth;
pub mod backbone;
pub mod chat;
pub mod clock;
pub mod config;
pub mod delivery;
pub mod dispatch;
pub mod http;
pub mod http_client;
pub mod limits;
pub mod metrics;
pub mod node;
pub mod push;
pub mod session;
pub mod store;
pub mod switches;
pub mod traces;
pub mod ws;
