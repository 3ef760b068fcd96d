//! Parley's gateway: one of many identical WebSocket chat nodes. Each module is a room of ARCHITECTURE.md's map.
//! It offers [`app::App`], a whole node, to the binary and to tests.
//! It holds no data that can't be lost: that is the store's. Imports go down only.

pub mod app;
pub mod audit;
pub mod auth;
pub mod backbone;
pub mod breaker;
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
pub mod overload;
pub mod session;
pub mod store;
pub mod switches;
pub mod traces;
pub mod webhooks;
pub mod ws;
