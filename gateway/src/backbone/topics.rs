//! The channels of large conversations: one for each, for all members. Nothing is kept there: the store is the log.

use async_trait::async_trait;
use bytes::Bytes;
use shared::{ConversationId, UserId};

use super::{BackboneError, CarriedMessage};

/// An event for all members of a large conversation.
#[derive(Debug, Clone)]
pub struct TopicEvent {
    /// The conversation.
    pub conversation: ConversationId,
    /// One canonical envelope with its `rev`.
    pub body: Bytes,
    /// The message that it brings, if members who are connected nowhere are to be notified of it.
    pub push: Option<TopicPush>,
}

/// A new message of a large conversation, for one push job.
#[derive(Debug, Clone)]
pub struct TopicPush {
    /// The message.
    pub message: CarriedMessage,
    /// Its sender.
    pub sender: UserId,
    /// The users whom it mentions.
    pub mentions: Vec<UserId>,
}

/// Publishing to large conversations, and being subscribed to them.
#[async_trait]
pub trait Topics: Send + Sync + 'static {
    /// Publishes each event once, in their order, and adds one push job for each that wants one. A node that is disconnected
    /// at that moment misses it, and reads it from the store. After an error some may have been published. It does no harm
    /// to publish one again, but for a second job.
    async fn publish_topics(&self, events: &[TopicEvent]) -> Result<(), BackboneError>;

    /// Subscribes this node to a conversation's channel, and returns when the server has confirmed it, within 3 s. Calls are
    /// counted: each that succeeds needs one [`Topics::unsubscribe_topic`].
    async fn subscribe_topic(&self, conversation: &ConversationId) -> Result<(), BackboneError>;

    /// Takes one [`Topics::subscribe_topic`] back. The channel is left 2 s after the last.
    fn unsubscribe_topic(&self, conversation: &ConversationId);
}
