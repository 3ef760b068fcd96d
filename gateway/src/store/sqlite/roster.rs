//! Who was in a conversation at some time.

use async_trait::async_trait;
use shared::{ConversationId, UserId};

use super::{SqliteStore, membership};
use crate::store::{Roster, StoreError};

#[async_trait]
impl Roster for SqliteStore {
    async fn members_at(&self, id: &ConversationId, seq: u64) -> Result<Vec<UserId>, StoreError> {
        let id = id.clone();
        self.read(move |read| membership::members_at(read, &id, seq)).await
    }
}
