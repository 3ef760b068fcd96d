//! Single values: a user's name, whether a user was ever here, a message's conversation, and whether a user is banned.

use async_trait::async_trait;
use shared::{ConversationId, MessageId, UserId};

use super::StoreError;

/// Single values by their key.
#[async_trait]
pub trait Lookups: Send + Sync + 'static {
    /// A user's name; of several the first in byte order.
    async fn username(&self, user: &UserId) -> Result<Option<String>, StoreError>;

    /// The same for several users by one query. A user without a name is left out.
    async fn usernames(&self, users: &[UserId]) -> Result<Vec<(UserId, String)>, StoreError>;

    /// Those of `users` who were ever here: seen, or known by a name.
    async fn known_users(&self, users: &[UserId]) -> Result<Vec<UserId>, StoreError>;

    /// The conversation of a message.
    async fn conversation_of(&self, message: MessageId) -> Result<Option<ConversationId>, StoreError>;

    /// Whether a user is banned from a conversation; `false` also if there is no such conversation.
    async fn is_banned(&self, conversation: &ConversationId, user: &UserId) -> Result<bool, StoreError>;
}
