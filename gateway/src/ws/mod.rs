//! WebSocket (RFC 6455): handshake and frame codec. Bytes in, messages and frames out.
//!
//! It knows nothing else of the gateway: no socket, no queue, no user, no dialect.

#[cfg(test)]
pub(crate) mod client_frame;
pub mod decoder;
pub mod frame;
pub mod handshake;
