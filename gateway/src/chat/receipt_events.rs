//! The durable events of receipts. Pure: the same events for the same receipts and outcomes.

use shared::{ConversationId, Event};

use super::events;
use crate::store::{OutboxEvent, Receipt, ReceiptChange, ReceiptKind, Refusal};

/// The durable events of a batch of receipts; the group commit writes them into the outbox row.
#[must_use]
pub fn receipt_events(receipts: &[Receipt], outcomes: &[Result<ReceiptChange, Refusal>]) -> Vec<OutboxEvent> {
    let changed =
        receipts.iter().zip(outcomes).filter_map(|(receipt, outcome)| Some((receipt, outcome.as_ref().ok()?)));
    changed.filter(|(_, change)| change.moved).flat_map(|(receipt, change)| events_of(receipt, change)).collect()
}

fn events_of(receipt: &Receipt, change: &ReceiptChange) -> Vec<OutboxEvent> {
    let conversation = &receipt.conversation;
    let mut list = Vec::with_capacity(1 + change.by_sender.len());
    if receipt.kind == ReceiptKind::Read {
        list.push(events::outbox_event(vec![receipt.user.clone()], &read_ack(conversation, change)));
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

/// The reader's acknowledgement.
pub(super) fn read_ack(conversation: &ConversationId, change: &ReceiptChange) -> Event {
    Event::MessageReadAck {
        conversation_id: conversation.clone(),
        marked_count: change.marked_count,
        read_at: change.at,
        up_to_seq: change.up_to_seq,
        last_seq: change.last_seq,
    }
}
