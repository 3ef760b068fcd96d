//! WebSocket: frame codec, bounded queue, the driver of one socket, and the session that speaks a dialect on it.

pub mod decoder;
pub mod frame;
pub mod handshake;
pub mod join;
pub mod limiter;
pub mod lobby;
pub mod outbox;
pub mod session;
pub mod socket;
