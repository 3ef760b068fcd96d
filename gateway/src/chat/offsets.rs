//! History by offset, counted back from the newest message. `seq` is gapless, so an offset is a place in it.

use shared::{ConversationId, Message, ProtocolError, UserId};

use super::Chat;
use crate::store::Page;

impl Chat {
    /// The direct conversation of the two, if one was opened.
    pub async fn direct_of(&self, one: &UserId, other: &UserId) -> Result<Option<ConversationId>, ProtocolError> {
        Ok(self.store.direct((one, other)).await?)
    }

    /// The last messages before the `offset` newest ones, ascending. `reader` must be a member.
    pub async fn page_back(
        &self,
        conversation: &ConversationId,
        reader: &UserId,
        offset: u64,
        limit: u32,
    ) -> Result<Vec<Message>, ProtocolError> {
        self.members.of_member(conversation, reader).await?;
        if offset == 0 {
            return Ok(self.store.messages(conversation, Page::Newest, limit).await?);
        }
        let last_seq = self.store.conversation(conversation, Some(reader)).await?.last_seq;
        match last_seq.checked_sub(offset) {
            None | Some(0) => Ok(Vec::new()),
            Some(newest) => Ok(self.store.messages(conversation, Page::Before(newest + 1), limit).await?),
        }
    }
}
