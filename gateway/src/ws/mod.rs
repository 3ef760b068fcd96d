//! WebSocket: handshake, frame codec, the bounded queue and the driver of one socket. Knows no user and no dialect.

#[cfg(test)]
pub(crate) mod client_frame;
pub mod decoder;
pub mod frame;
pub mod handshake;
pub mod send_queue;
pub mod socket;
