//! Looking for a direct conversation without opening one.

use async_trait::async_trait;
use shared::{ConversationId, UserId};

use super::StoreError;

/// The part of the store that knows direct conversations by their two users.
#[async_trait]
pub trait Directs {
    /// The direct conversation of the two, if there is one.
    async fn direct(&self, pair: (&UserId, &UserId)) -> Result<Option<ConversationId>, StoreError>;
}
