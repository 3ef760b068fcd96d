//! Parley's gateway: a stateless WebSocket chat node. `app` puts the parts together; imports go down only.

pub mod app;
pub mod audit;
pub mod auth;
pub mod backbone;
pub mod chat;
pub mod clock;
pub mod config;
pub mod dispatch;
pub mod envelope;
pub mod fanout;
pub mod frames;
pub mod heal;
pub mod http;
pub mod http_client;
pub mod limits;
pub mod lobby;
pub mod metrics;
pub mod node;
pub mod pulse;
pub mod push;
pub mod registry;
pub mod session;
pub mod shutdown;
pub mod store;
pub mod traces;
pub mod ws;
