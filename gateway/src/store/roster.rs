//! Who was in a conversation at some time: what is published late goes to the members of then.

use async_trait::async_trait;
use shared::{ConversationId, UserId};

use super::StoreError;

/// Past members.
#[async_trait]
pub trait Roster {
    /// The accepted members of a conversation when its message `seq` was committed, ascending by id, however often they left
    /// and came back since. None if there is no such conversation.
    async fn members_at(&self, id: &ConversationId, seq: u64) -> Result<Vec<UserId>, StoreError>;
}
