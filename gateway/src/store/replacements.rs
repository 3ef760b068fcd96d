//! Messages that the hook gave another content: a repetition of such a send isn't compared with what is stored.

use async_trait::async_trait;
use shared::{Message, TempId, UserId};

use super::StoreError;

/// What a sender stored before under a `temp_id`.
#[derive(Debug, Clone, PartialEq)]
pub struct EarlierSend {
    /// The message as it is now.
    pub message: Message,
    /// Whether its content is the hook's.
    pub replaced: bool,
}

/// Earlier sends, and their replacements.
#[async_trait]
pub trait Replacements: Send + Sync + 'static {
    /// Notes that the message which the sender is about to store under this `temp_id` has the hook's content.
    async fn note_replaced(&self, sender: &UserId, temp_id: &TempId) -> Result<(), StoreError>;

    /// The message that the sender stored under this `temp_id`.
    async fn sent_earlier(&self, sender: &UserId, temp_id: &TempId) -> Result<Option<EarlierSend>, StoreError>;
}
