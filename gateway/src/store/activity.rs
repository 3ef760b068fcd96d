//! Statistics of channels for operators: which of some users are in which channel, and how busy a channel is. Groups
//! count as channels here.

use async_trait::async_trait;
use shared::{ConversationId, Timestamp, UserId};

use super::StoreError;

/// The newest messages of a channel that [`Activity::activity`] looks at.
pub(super) const ACTIVITY_MESSAGES_MAX: u32 = 10_000;

/// The number of some users that are in a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelCount {
    /// The channel.
    pub channel: ConversationId,
    /// How many of the users are accepted members.
    pub users: u64,
    /// The sum of their connections.
    pub connections: u64,
}

/// How busy a channel is, by its newest ten thousand messages and the store's clock.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChannelActivity {
    /// When the newest message was stored.
    pub last_message_at: Option<Timestamp>,
    /// Messages of the last minute.
    pub last_minute: u64,
    /// Messages of the last hour.
    pub last_hour: u64,
    /// The number of users who sent the messages of the last hour.
    pub senders_last_hour: u64,
}

/// Statistics of channels. Bounded, and without writes.
#[async_trait]
pub trait Activity: Send + Sync + 'static {
    /// The channels of each of these users, at most `limit_each`, by id.
    async fn channels_of(&self, users: &[UserId], limit_each: u32)
    -> Result<Vec<(UserId, ConversationId)>, StoreError>;

    /// The channels with the most of these users, each given with a number of connections; at most `limit`.
    async fn busiest(&self, users: &[(UserId, u32)], limit: u32) -> Result<Vec<ChannelCount>, StoreError>;

    /// How busy a channel is; nothing for one that isn't there.
    async fn activity(&self, id: &ConversationId) -> Result<ChannelActivity, StoreError>;
}
