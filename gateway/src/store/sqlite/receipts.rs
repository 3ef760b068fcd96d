//! Receipts and unread counts: positions of members, moved in one transaction.

use std::collections::BTreeMap;

use async_trait::async_trait;
use rusqlite::{Connection, Row, params};
use shared::{ConversationId, MessageId, Timestamp, UserId, Visibility};

use super::outbox;
use super::rows::{execute, integer, message_id, now_ms, number, parsed, row, rows, word, word_or_null};
use super::thread::SqliteStore;
use crate::store::membership::State;
use crate::store::receipts::{Advance, Move, Place};
use crate::store::{MARKED_IDS_MAX, OutboxRow, Receipt, ReceiptChange, Receipts, Refusal, StoreError, UnreadCount};

#[async_trait]
impl Receipts for SqliteStore {
    async fn receipts(
        &self,
        receipts: &[Receipt],
        outbox: OutboxRow<Vec<Result<ReceiptChange, Refusal>>>,
    ) -> Result<Vec<Result<ReceiptChange, Refusal>>, StoreError> {
        let receipts = receipts.to_vec();
        self.write(move |change| apply(change, &receipts, &outbox)).await
    }

    async fn unread(&self, users: &[UserId]) -> Result<Vec<Vec<UnreadCount>>, StoreError> {
        let users = users.to_vec();
        self.read(move |read| users.iter().map(|user| unread(read, user)).collect()).await
    }

    async fn unread_in(&self, places: &[(UserId, ConversationId)]) -> Result<Vec<Option<UnreadCount>>, StoreError> {
        let places = places.to_vec();
        self.read(move |read| places.iter().map(|(user, id)| unread_in(read, user, id)).collect()).await
    }
}

fn apply(
    change: &Connection,
    receipts: &[Receipt],
    row: &OutboxRow<Vec<Result<ReceiptChange, Refusal>>>,
) -> Result<Vec<Result<ReceiptChange, Refusal>>, StoreError> {
    let at = Timestamp::from_unix_ms(now_ms());
    let mut advance = Advance::default();
    let mut changes = Vec::with_capacity(receipts.len());
    for receipt in receipts {
        let place = place(change, receipt)?;
        changes.push(match advance.apply(receipt, &place) {
            Ok(step) => Ok(covered(change, receipt, step, (place.last_seq, at))?),
            Err(refusal) => Err(refusal),
        });
    }
    let sql = "UPDATE members SET read_seq = max(read_seq, ?3), seen_seq = max(seen_seq, ?3), \
        delivered_seq = max(delivered_seq, ?4) WHERE conversation_id = ?1 AND user_id = ?2";
    for (conversation, user, positions) in advance.moved() {
        let (read, delivered) = (integer(positions.read_seq), integer(positions.delivered_seq));
        execute(change, sql, params![conversation.as_str(), user.as_str(), read, delivered])?;
    }
    outbox::write(change, row, &changes)?;
    Ok(changes)
}

fn place(change: &Connection, receipt: &Receipt) -> Result<Place, StoreError> {
    let (conversation, user) = (receipt.conversation.as_str(), receipt.user.as_str());
    let sql = "SELECT visibility, last_seq FROM conversations WHERE id = ?1";
    let head = row(change, sql, [conversation], |row| {
        Ok((word(row, "visibility", Visibility::parse)?, number(row, "last_seq")?))
    })?;
    let sql = "SELECT state, read_seq, delivered_seq FROM members WHERE conversation_id = ?1 AND user_id = ?2";
    let member = row(change, sql, [conversation, user], |row| {
        Ok((word_or_null(row, "state", State::parse)?, number(row, "read_seq")?, number(row, "delivered_seq")?))
    })?;
    let named_seq = match receipt.up_to {
        Some(id) => {
            let sql = "SELECT seq FROM messages WHERE id = ?1 AND conversation_id = ?2";
            row(change, sql, params![integer(id.get()), conversation], |row| number(row, "seq"))?
        }
        None => None,
    };
    let (state, read_seq, delivered_seq) = member.unwrap_or((None, 0, 0));
    Ok(Place {
        visibility: head.map(|(visibility, _)| visibility),
        state,
        read_seq,
        delivered_seq,
        last_seq: head.map_or(0, |(_, last_seq)| last_seq),
        named_seq,
    })
}

/// The messages that a move newly covers.
fn covered(
    change: &Connection,
    receipt: &Receipt,
    step: Move,
    (last_seq, at): (u64, Timestamp),
) -> Result<ReceiptChange, StoreError> {
    let (conversation, user) = (receipt.conversation.as_str(), receipt.user.as_str());
    let (low, high) = (integer(step.from), integer(step.to));
    let sql = "SELECT count(*) AS marked FROM messages \
        WHERE conversation_id = ?1 AND seq > ?3 AND seq <= ?4 AND sender_id <> ?2";
    let marked_count =
        row(change, sql, params![conversation, user, low, high], |row| number(row, "marked"))?.unwrap_or_default();
    let sql = "SELECT x.sender_id, x.id FROM (SELECT sender_id, id, seq FROM messages \
            WHERE conversation_id = ?1 AND seq > ?3 AND seq <= ?4 AND sender_id <> ?2 ORDER BY seq DESC LIMIT ?5) x \
        WHERE EXISTS (SELECT 1 FROM members WHERE conversation_id = ?1 AND user_id = x.sender_id AND state = 'accepted') \
            AND NOT EXISTS (SELECT 1 FROM blocks WHERE (blocker = ?2 AND blocked = x.sender_id) \
                OR (blocker = x.sender_id AND blocked = ?2)) ORDER BY x.seq DESC";
    let marked = rows(change, sql, params![conversation, user, low, high, MARKED_IDS_MAX], |row| {
        Ok((parsed(row, "sender_id", str::parse)?, message_id(row, "id")?))
    })?;
    let mut by_sender: BTreeMap<UserId, Vec<MessageId>> = BTreeMap::new();
    for (sender, id) in marked.into_iter().rev() {
        by_sender.entry(sender).or_default().push(id);
    }
    let sql = "SELECT id FROM messages WHERE conversation_id = ?1 AND seq = ?2";
    let up_to = row(change, sql, params![conversation, high], |row| message_id(row, "id"))?;
    Ok(ReceiptChange {
        up_to_seq: step.to,
        up_to,
        marked_count,
        by_sender: by_sender.into_iter().collect(),
        last_seq,
        moved: step.to > step.from,
        at,
    })
}

fn unread(read: &Connection, user: &UserId) -> Result<Vec<UnreadCount>, StoreError> {
    let sql = "SELECT c.id, c.last_seq, p.seen_seq FROM members p JOIN conversations c ON c.id = p.conversation_id \
        WHERE p.user_id = ?1 AND p.state = 'accepted' ORDER BY c.id";
    rows(read, sql, [user.as_str()], count)
}

fn unread_in(read: &Connection, user: &UserId, id: &ConversationId) -> Result<Option<UnreadCount>, StoreError> {
    let sql = "SELECT c.id, c.last_seq, p.seen_seq FROM members p JOIN conversations c ON c.id = p.conversation_id \
        WHERE p.user_id = ?1 AND p.conversation_id = ?2 AND p.state = 'accepted'";
    row(read, sql, [user.as_str(), id.as_str()], count)
}

fn count(row: &Row<'_>) -> Result<UnreadCount, StoreError> {
    Ok(UnreadCount {
        conversation: parsed(row, "id", str::parse)?,
        last_seq: number(row, "last_seq")?,
        seen_seq: number(row, "seen_seq")?,
    })
}
