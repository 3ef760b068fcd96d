//! WebSocket (RFC 6455, compression by RFC 7692) as bytes in, messages and frames out.
//! It offers the handshake, the decoder of client frames, and the server's frames.
//! It never touches a socket, a queue, a user or a dialect: it imports nothing else of the gateway.

#[cfg(test)]
pub(crate) mod client_frame;
pub mod decoder;
pub mod deflate;
pub mod extensions;
pub mod frame;
pub mod handshake;
