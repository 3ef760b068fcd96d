//! Single values: a user's name, whether a user was ever here, a message's conversation, and why a user is no member.

use async_trait::async_trait;
use shared::{ConversationId, MessageId, UserId};

use super::{Names, Refusal, StoreError};

/// Single values by their key.
#[async_trait]
pub trait Lookups: Send + Sync + 'static {
    /// The name that a user is shown by.
    async fn username(&self, user: &UserId) -> Result<Option<String>, StoreError>;

    /// The same for several users by one query. A user without a name is left out.
    async fn usernames(&self, users: &[UserId]) -> Result<Vec<(UserId, String)>, StoreError>;

    /// Both names of several users: the one by which others look them up, and the one that is shown. A user without either
    /// is left out.
    async fn names_of(&self, users: &[UserId]) -> Result<Vec<(UserId, Names)>, StoreError>;

    /// Those of `users` who were ever here: seen, or known by a name.
    async fn known_users(&self, users: &[UserId]) -> Result<Vec<UserId>, StoreError>;

    /// The conversation of a message.
    async fn conversation_of(&self, message: MessageId) -> Result<Option<ConversationId>, StoreError>;

    /// Why `user`, who is no accepted member (`None`: a backend), gets nothing of a conversation: `NotFound` if there
    /// is none, or it was deleted; else `Banned` or `NotMember`.
    async fn outside(&self, conversation: &ConversationId, user: Option<&UserId>) -> Result<Refusal, StoreError>;
}

/// The refusal for a user who is no accepted member of a conversation, from whether it exists and whether they are
/// banned.
pub(super) fn outsider(found: Option<bool>) -> Refusal {
    match found {
        None => Refusal::NotFound,
        Some(true) => Refusal::Banned,
        Some(false) => Refusal::NotMember,
    }
}
