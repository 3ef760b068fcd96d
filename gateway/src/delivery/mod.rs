//! From the backbone to the sockets: payloads are checked, framed once for each dialect, and queued in order.
//!
//! Offers [`fanout::Fanout`] to the backbone, [`registry::Registry`] and [`send_queue::SendQueue`] to sessions. It never
//! writes to a socket and never publishes.

pub mod already_seen;
pub mod count_loader;
pub mod counts;
pub mod envelope;
pub mod fanout;
pub mod frame_queue;
pub mod frames;
pub mod gate;
pub mod heal;
pub mod healer;
pub mod known_counts;
pub mod liveness;
pub mod marker;
pub mod registry;
pub mod send_queue;
mod shown_typing;
pub mod topics;
