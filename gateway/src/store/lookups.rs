//! What dialects have to look up: a user's name, and where a message stands.

use async_trait::async_trait;
use shared::{ConversationId, MessageId, UserId};

use super::StoreError;

/// Single values by their key.
#[async_trait]
pub trait Lookups: Send + Sync {
    /// The name with which a user came; of several the first in byte order.
    async fn username(&self, user: &UserId) -> Result<Option<String>, StoreError>;

    /// The conversation in which a message stands.
    async fn conversation_of(&self, message: MessageId) -> Result<Option<ConversationId>, StoreError>;
}
