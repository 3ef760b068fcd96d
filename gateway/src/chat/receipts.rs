//! Receipts: the reader's other devices are notified of the read position, the senders of the reader.

use shared::{ConversationId, Event, MessageId, ProtocolError, UserId};

use super::receipt_events::read_ack;
use super::{Chat, refused};
use crate::store::{Receipt, ReceiptChange, ReceiptKind, Refusal, StoreError};

impl Chat {
    /// Marks messages as read. The answer goes to all the reader's devices when something moved; otherwise it is returned,
    /// for the asking connection alone.
    pub async fn read(
        &self,
        reader: &UserId,
        conversation: &ConversationId,
        up_to: Option<MessageId>,
    ) -> Result<ReadOutcome, ProtocolError> {
        let change = self.receipt(ReceiptKind::Read, reader, conversation, up_to).await?;
        Ok(ReadOutcome { marked_count: change.marked_count, told: change.moved, ack: read_ack(conversation, &change) })
    }

    /// Marks messages as read up to this one, whose conversation the asking dialect doesn't name.
    pub async fn read_message(&self, reader: &UserId, message: MessageId) -> Result<ReadOutcome, ProtocolError> {
        let conversation = self.store.conversation_of(message).await?.ok_or_else(|| refused(Refusal::NotFound))?;
        self.read(reader, &conversation, Some(message)).await
    }

    /// Says that messages have reached the user.
    pub async fn delivered(
        &self,
        user: &UserId,
        conversation: &ConversationId,
        up_to: MessageId,
    ) -> Result<(), ProtocolError> {
        self.receipt(ReceiptKind::Delivered, user, conversation, Some(up_to)).await.map(drop)
    }

    async fn receipt(
        &self,
        kind: ReceiptKind,
        user: &UserId,
        conversation: &ConversationId,
        up_to: Option<MessageId>,
    ) -> Result<ReceiptChange, ProtocolError> {
        let receipt = Receipt { kind, user: user.clone(), conversation: conversation.clone(), up_to };
        let outcome = self.commit.receipt(receipt).await?.map_err(StoreError::from);
        self.outside(conversation, Some(user), outcome).await
    }
}

/// The outcome of `message.read`.
#[derive(Debug, Clone)]
pub struct ReadOutcome {
    /// How many messages of others were newly marked.
    pub marked_count: u64,
    /// Whether the reader's devices are notified through the backbone.
    pub told: bool,
    /// The acknowledgement.
    pub ack: Event,
}
