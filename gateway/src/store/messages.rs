//! Messages: storing batches of them, and reading them page by page. Changes of stored messages are in `changes`.

use async_trait::async_trait;
use shared::{ConversationId, Message};

use super::{Page, SendBatch, SendOutcome, StoreError};

/// Messages, stored and read.
#[async_trait]
pub trait Messages: Send + Sync + 'static {
    /// Stores a batch of messages in one transaction. It locks the conversations in order of id, finds duplicates by
    /// `(sender, temp_id)`, refuses other messages under a used `temp_id`, and checks membership, bans and blocks. It numbers without gaps, and writes the outbox row.
    /// It moves the conversation's last message and the sender's `seen_seq`. It moves the sender's `read_seq` if no
    /// message of another user lies between.
    ///
    /// The outcomes are in the order of the messages. `Failed` means that nothing of the batch was stored;
    /// [`GroupCommit`](super::GroupCommit) then stores message by message.
    async fn send(&self, batch: &SendBatch) -> Result<Vec<SendOutcome>, StoreError>;

    /// Messages of a conversation, ascending by `seq` (by `rev` for `ChangedSince`). The caller has checked membership.
    async fn messages(&self, id: &ConversationId, page: Page, limit: u32) -> Result<Vec<Message>, StoreError>;
}
