//! Receipts and unread counts: how receipts move a member's positions. The rules that both stores share, and the trait.

use std::collections::BTreeMap;

use async_trait::async_trait;
use shared::{ConversationId, UserId, Visibility};

use super::membership::{self, State};
use super::{OutboxRow, Receipt, ReceiptChange, ReceiptKind, Refusal, StoreError, UnreadCount};

/// The positions up to which members have read and received messages.
#[async_trait]
pub trait Receipts: Send + Sync + 'static {
    /// Applies receipts in one transaction with one outbox row of all their events; outcomes in order.
    /// `Refused(NotMember)`, `Refused(NotFound)` stand for one receipt each.
    async fn receipts(
        &self,
        receipts: &[Receipt],
        outbox: OutboxRow<Vec<Result<ReceiptChange, Refusal>>>,
    ) -> Result<Vec<Result<ReceiptChange, Refusal>>, StoreError>;

    /// For each of `users`, in their order, the unread counts in all their conversations.
    async fn unread(&self, users: &[UserId]) -> Result<Vec<Vec<UnreadCount>>, StoreError>;

    /// For each of these, in their order, the user's unread count in that one conversation; `None` for who is no member.
    async fn unread_in(&self, places: &[(UserId, ConversationId)]) -> Result<Vec<Option<UnreadCount>>, StoreError>;
}

/// What a receipt is judged by, read under the member's lock.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// The conversation's visibility, if there is such a conversation.
    pub(super) visibility: Option<Visibility>,
    pub(super) state: Option<State>,
    pub(super) read_seq: u64,
    pub(super) delivered_seq: u64,
    pub(super) last_seq: u64,
    /// The `seq` of the message that the receipt names, if it stands in the conversation.
    pub(super) named_seq: Option<u64>,
}

/// A position's move; nothing moved when both are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) from: u64,
    pub(super) to: u64,
}

/// A member's positions after a batch of receipts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Positions {
    pub(super) read_seq: u64,
    pub(super) delivered_seq: u64,
}

/// Carries the positions of a batch's members from one receipt to the next.
#[derive(Debug, Default)]
pub(super) struct Advance {
    moved: BTreeMap<(ConversationId, UserId), Positions>,
}

impl Advance {
    /// Applies one receipt.
    pub(super) fn apply(&mut self, receipt: &Receipt, place: &Place) -> Result<Move, Refusal> {
        place.visibility.ok_or(Refusal::NotFound)?;
        if let Some(refusal) = membership::refusal(place.state) {
            return Err(refusal);
        }
        let target = match receipt.up_to {
            None => place.last_seq,
            Some(_) => place.named_seq.ok_or(Refusal::NotFound)?,
        };
        let key = (receipt.conversation.clone(), receipt.user.clone());
        let before = self
            .moved
            .get(&key)
            .copied()
            .unwrap_or(Positions { read_seq: place.read_seq, delivered_seq: place.delivered_seq });
        let (from, after) = match receipt.kind {
            ReceiptKind::Read => (
                before.read_seq,
                Positions { read_seq: before.read_seq.max(target), delivered_seq: before.delivered_seq.max(target) },
            ),
            ReceiptKind::Delivered => {
                (before.delivered_seq, Positions { delivered_seq: before.delivered_seq.max(target), ..before })
            }
        };
        if after != before {
            self.moved.insert(key, after);
        }
        Ok(Move { from, to: from.max(target) })
    }

    /// The positions to write, in the order in which rows are locked.
    pub(super) fn moved(&self) -> impl ExactSizeIterator<Item = (&ConversationId, &UserId, Positions)> {
        self.moved.iter().map(|((conversation, user), positions)| (conversation, user, *positions))
    }
}
