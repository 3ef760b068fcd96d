//! HTTP: the public listener (sockets, REST, the demo page) and the one for operators.

mod admission;
pub mod demo;
mod listener;
pub mod ops;
pub mod rest;
pub mod stats;
mod upgrade;

pub use listener::{Capacity, serve};
pub use upgrade::{Sockets, SocketsConfig};
