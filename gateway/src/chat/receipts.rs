//! Receipts: the reader's devices learn what is read, the senders learn by whom.

use std::sync::Arc;

use shared::{ConversationId, Event, MessageId, ProtocolError, UserId};

use super::{Chat, events, refused};
use crate::store::{OutboxEvent, Receipt, ReceiptChange, ReceiptKind, Refusal, UnreadMove};

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
        self.commit.receipt(receipt).await?.map_err(refused)
    }
}

/// What `message.read` did.
#[derive(Debug, Clone)]
pub struct ReadOutcome {
    /// How many messages of others were newly marked.
    pub marked_count: u64,
    /// Whether the reader's devices are told through the backbone.
    pub told: bool,
    /// The acknowledgement.
    pub ack: Event,
}

/// The durable events of a batch of receipts: what the group commit writes into the outbox row.
#[must_use]
pub fn receipt_events(receipts: &[Receipt], outcomes: &[Result<ReceiptChange, Refusal>]) -> Vec<OutboxEvent> {
    let changed =
        receipts.iter().zip(outcomes).filter_map(|(receipt, outcome)| Some((receipt, outcome.as_ref().ok()?)));
    changed.filter(|(_, change)| change.moved).flat_map(|(receipt, change)| events_of(receipt, change)).collect()
}

/// [`receipt_events`] in the form that the group commit takes.
#[must_use]
pub fn receipt_events_builder() -> crate::store::group_commit::ReceiptEvents {
    Arc::new(receipt_events)
}

fn events_of(receipt: &Receipt, change: &ReceiptChange) -> Vec<OutboxEvent> {
    let conversation = &receipt.conversation;
    let mut list = Vec::with_capacity(1 + change.by_sender.len());
    if receipt.kind == ReceiptKind::Read {
        let unread = UnreadMove {
            conversation: conversation.clone(),
            last_seq: change.last_seq,
            seen_seq: change.up_to_seq,
            announce: true,
        };
        list.push(events::outbox_event_unread(receipt.user.clone(), &read_ack(conversation, change), unread));
    }
    for (sender, messages) in &change.by_sender {
        let event = match receipt.kind {
            ReceiptKind::Read => Event::MessageReadUpdate {
                conversation_id: conversation.clone(),
                message_ids: messages.clone(),
                read_by: receipt.user.clone(),
                read_at: change.at,
            },
            ReceiptKind::Delivered => {
                let Some(up_to) = messages.last() else { continue };
                Event::MessageDeliveredUpdate {
                    conversation_id: conversation.clone(),
                    up_to: *up_to,
                    user_id: receipt.user.clone(),
                    delivered_at: change.at,
                }
            }
        };
        list.push(events::outbox_event(vec![sender.clone()], &event));
    }
    list
}

fn read_ack(conversation: &ConversationId, change: &ReceiptChange) -> Event {
    Event::MessageReadAck {
        conversation_id: conversation.clone(),
        marked_count: change.marked_count,
        read_at: change.at,
    }
}
