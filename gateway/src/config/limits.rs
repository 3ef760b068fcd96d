//! Sizes, numbers and rates: the limits that an operator can set.

use std::num::NonZeroU16;

use super::error::ConfigError;
use super::layers::Layers;
use super::machine::connections_from_descriptors;

/// The highest number of connections: a count above it could overflow.
const CONNECTIONS_MAX: usize = usize::MAX >> 1;

/// The highest rate, per second.
const RATE_MAX: u32 = 1_000_000;

/// Sizes, numbers and rates; 0 turns a limit off where LIMITS.md says so.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The largest assembled WebSocket message, in bytes.
    pub frame_bytes_max: u32,
    /// The longest content, in characters.
    pub content_chars_max: usize,
    /// The smallest payload that is compressed (permessage-deflate), in bytes; `None`: no extension is negotiated.
    pub compress_min_bytes: Option<NonZeroU16>,
    /// Bytes that may wait for one socket.
    pub send_queue_bytes: u32,
    /// Sockets on this node.
    pub connections_max: usize,
    /// Sockets of one user on this node; 0: no limit.
    pub connections_per_user_max: usize,
    /// Sockets of one address on this node (IPv6: of one /64); 0: no limit.
    pub connections_per_ip_max: usize,
    /// Handshakes of one address per second on this node (burst twice that); 0: no limit.
    pub connect_rate_per_ip: u32,
    /// Connects of one user per second on this node (burst forty times that); 0: no limit.
    pub connect_rate_per_user: u32,
    /// With more members a conversation is large: its events are published once for all members. 0: none is.
    pub large_conversation_members: u32,
    /// Durable events of one large conversation per second on this node (burst twice that); 0: no limit.
    pub large_events_per_second: u32,
    /// Commands of one connection per second (burst twice that); 0: no limit.
    pub commands_per_second: u32,
    /// Commands of one user per second on all nodes (burst twice that); 0: no limit.
    pub user_commands_per_second: u32,
}

impl Limits {
    pub(super) fn read(layers: &Layers) -> Result<Self, ConfigError> {
        let connections_max = layers.number_if_set("MAX_CONNECTIONS", 1, CONNECTIONS_MAX)?;
        Ok(Self {
            frame_bytes_max: layers.number("MAX_FRAME_BYTES", 1024, 16 << 20)?,
            content_chars_max: layers.number("MAX_CONTENT_CHARS", 1, 1 << 20)?,
            compress_min_bytes: NonZeroU16::new(layers.number("COMPRESS_MIN_BYTES", 0, u16::MAX)?),
            send_queue_bytes: layers.number("SEND_QUEUE_BYTES", 16_384, 1 << 30)?,
            connections_max: connections_max.unwrap_or_else(connections_from_descriptors),
            connections_per_user_max: layers.number("MAX_CONNECTIONS_PER_USER", 0, CONNECTIONS_MAX)?,
            connections_per_ip_max: layers.number("MAX_CONNECTIONS_PER_IP", 0, CONNECTIONS_MAX)?,
            connect_rate_per_ip: layers.number("CONNECT_RATE_PER_IP", 0, RATE_MAX)?,
            connect_rate_per_user: layers.number("CONNECT_RATE_PER_USER", 0, RATE_MAX)?,
            large_conversation_members: layers.number("LARGE_CONVERSATION_MEMBERS", 0, 100_000)?,
            large_events_per_second: layers.number("LARGE_EVENTS_PER_SECOND", 0, RATE_MAX)?,
            commands_per_second: layers.number("COMMANDS_PER_SECOND", 0, RATE_MAX)?,
            user_commands_per_second: layers.number("USER_COMMANDS_PER_SECOND", 0, RATE_MAX)?,
        })
    }
}
