//! HTTP: the public listener (sockets, REST, the demo page) and the one for operators.

mod admission;
mod browsers;
mod client_address;
pub mod demo;
mod head;
mod listener;
pub mod ops;
mod proxy_protocol;
pub mod rest;
pub mod stats;
mod upgrade;

pub use client_address::ClientAddress;
pub(crate) use head::foreign_name;
pub use listener::{Capacity, serve};
pub use upgrade::{Sockets, SocketsConfig};
