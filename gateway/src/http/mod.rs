//! HTTP: the public listener (sockets, REST, the demo page) and the one for operators.
//! It offers the accept loop, the upgrade of a request to a session, and the routes.
//! It never drives a socket after the upgrade: that is the session's.

mod admission;
mod browsers;
mod client_address;
pub mod demo;
mod head;
mod listener;
mod open_stream;
pub mod ops;
mod plain_connections;
mod proxy_protocol;
mod public;
pub mod rest;
pub mod stats;
mod upgrade;

pub use client_address::ClientAddress;
pub use listener::{Capacity, Listeners, serve};
pub use public::{Public, answer};
pub use upgrade::{Sockets, SocketsConfig};
