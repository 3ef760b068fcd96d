//! WebSocket: frame codec, bounded queue, the driver of one socket, and the session that speaks a dialect on it.

pub mod outbox;
