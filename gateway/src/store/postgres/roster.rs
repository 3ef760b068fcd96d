//! Who was in a conversation at some time.

use async_trait::async_trait;
use shared::{ConversationId, UserId};

use super::{PooledConnection, PostgresStore, membership, on_connection, within};
use crate::store::{Roster, StoreError};

#[async_trait]
impl Roster for PostgresStore {
    async fn members_at(&self, id: &ConversationId, seq: u64) -> Result<Vec<UserId>, StoreError> {
        on_connection!(self, client => membership::members_at(client, id, seq))
    }
}
