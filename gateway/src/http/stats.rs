//! This node's stats: its sockets, users and largest channels, in numbers.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use shared::{ConversationId, Timestamp};

use crate::node::Node;

/// The channels that are listed.
const CHANNELS_MAX: u32 = 50;
/// The users of this node whose channels are looked up.
const USERS_LOOKED_UP_MAX: usize = 10_000;

/// The answer of the stats endpoint; of this node alone.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// This node's name.
    node: String,
    /// Open sockets of authenticated users.
    connections: usize,
    /// Users with at least one.
    users: usize,
    /// Sockets by dialect.
    dialects: BTreeMap<&'static str, usize>,
    /// The groups and channels with the most users on this node; absent while the store is away.
    #[serde(skip_serializing_if = "Option::is_none")]
    channels: Option<Vec<Channel>>,
    /// Only the channels of some of the users were counted: there are too many.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    channels_sampled: bool,
    /// This boot's name.
    boot: String,
}

/// A channel's users and sockets on this node.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Channel {
    channel_id: ConversationId,
    users: u64,
    connections: u64,
}

impl Stats {
    /// The numbers now.
    pub async fn of(node: &Node) -> Self {
        let dialects = node.registry.sockets_by_dialect().into_iter();
        let users = node.registry.users_with_sockets(USERS_LOOKED_UP_MAX);
        let channels_sampled = users.len() == USERS_LOOKED_UP_MAX;
        let channels = match node.store.busiest(&users, CHANNELS_MAX).await {
            Ok(channels) => Some(channels.into_iter().map(Channel::from).collect()),
            Err(error) => {
                tracing::debug!(%error, "channels could not be counted: the store is unavailable");
                None
            }
        };
        Self {
            node: node.name.to_string(),
            connections: node.registry.socket_count(),
            users: node.registry.user_count(),
            dialects: dialects.map(|(dialect, sockets)| (dialect.subprotocol(), sockets)).collect(),
            channels,
            channels_sampled,
            boot: node.boot.to_string(),
        }
    }
}

impl From<crate::store::ChannelCount> for Channel {
    fn from(count: crate::store::ChannelCount) -> Self {
        Self { channel_id: count.channel, users: count.users, connections: count.connections }
    }
}

/// The time that many seconds from now (before now, if negative).
pub(super) fn seconds_from_now(seconds: i64) -> Timestamp {
    Timestamp::from_unix_ms(Timestamp::now().unix_ms().saturating_add(seconds.saturating_mul(1000)))
}
