//! The channels of large conversations: one for each, for all members. Nothing is kept there: the store is the log.

use async_trait::async_trait;
use bytes::Bytes;
use shared::ConversationId;

use super::BackboneError;

/// An event for all members of a large conversation.
#[derive(Debug, Clone)]
pub struct TopicEvent {
    /// The conversation.
    pub conversation: ConversationId,
    /// One canonical envelope with its `rev`.
    pub body: Bytes,
}

/// Publishing to large conversations, and being subscribed to them.
#[async_trait]
pub trait Topics: Send + Sync + 'static {
    /// Publishes each event once, in their order. A node that is disconnected at that moment misses it, and reads it from the
    /// store. After an error some may have been published; it does no harm to publish one again.
    async fn publish_topics(&self, events: &[TopicEvent]) -> Result<(), BackboneError>;

    /// Subscribes this node to a conversation's channel, and returns when the server has confirmed it, within 3 s. Calls are
    /// counted: each that succeeds needs one [`Topics::unsubscribe_topic`].
    async fn subscribe_topic(&self, conversation: &ConversationId) -> Result<(), BackboneError>;

    /// Takes one [`Topics::subscribe_topic`] back. The channel is left 2 s after the last.
    fn unsubscribe_topic(&self, conversation: &ConversationId);
}
