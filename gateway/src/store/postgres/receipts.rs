//! Receipts and unread counts: positions of members, moved in batches.

use std::collections::BTreeMap;

use async_trait::async_trait;
use deadpool_postgres::{GenericClient, Object};
use futures_util::future::{try_join, try_join3};
use shared::{MessageId, Timestamp, UserId, Visibility};
use tokio_postgres::Row;

use super::call::{on_connection, query};
use super::outbox;
use super::pool::PostgresStore;
use super::rows::{bigint, get, index, message_id, number, parsed, time, unsigned, word_or_null};
use crate::store::membership::State;
use crate::store::receipts::{Advance, Move, Place};
use crate::store::{MARKED_IDS_MAX, OutboxRow, Receipt, ReceiptChange, Receipts, Refusal, StoreError, UnreadCount};

#[async_trait]
impl Receipts for PostgresStore {
    async fn receipts(
        &self,
        receipts: &[Receipt],
        outbox: OutboxRow<Vec<Result<ReceiptChange, Refusal>>>,
    ) -> Result<Vec<Result<ReceiptChange, Refusal>>, StoreError> {
        on_connection!(self, Commit: client => apply(client, receipts, &outbox))
    }

    async fn unread(&self, users: &[UserId]) -> Result<Vec<Vec<UnreadCount>>, StoreError> {
        on_connection!(self, client => unread(client, users))
    }
}

const LOCK: &str = "SELECT 1 FROM members m \
    WHERE (m.conversation_id, m.user_id) IN (SELECT * FROM unnest($1::text[], $2::text[])) \
    ORDER BY m.conversation_id, m.user_id FOR NO KEY UPDATE";

const PLACES: &str = "SELECT c.visibility, c.last_seq, m.state, m.read_seq, m.delivered_seq, u.seq AS named_seq, \
        clock_timestamp() AS at \
    FROM unnest($1::text[], $2::text[], $3::bigint[]) WITH ORDINALITY AS i(conversation_id, user_id, up_to, place) \
    LEFT JOIN conversations c ON c.id = i.conversation_id \
    LEFT JOIN members m ON m.conversation_id = i.conversation_id AND m.user_id = i.user_id \
    LEFT JOIN messages u ON u.id = i.up_to AND u.conversation_id = i.conversation_id ORDER BY i.place";

const COUNTS: &str = "SELECT u.id AS up_to, (SELECT count(*) FROM messages x WHERE x.conversation_id = i.conversation_id \
        AND x.seq > i.low AND x.seq <= i.high AND x.sender_id <> i.user_id) AS marked \
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) WITH ORDINALITY \
        AS i(conversation_id, user_id, low, high, place) \
    LEFT JOIN messages u ON u.conversation_id = i.conversation_id AND u.seq = i.high ORDER BY i.place";

/// The newest messages that a receipt covers, of senders who learn of it. OFFSET 0 keeps look-ups by key.
const MARKED: &str = "SELECT i.place, x.sender_id, x.id \
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) WITH ORDINALITY \
        AS i(conversation_id, user_id, low, high, place) \
    CROSS JOIN LATERAL (SELECT x.sender_id, x.id, x.seq FROM messages x WHERE x.conversation_id = i.conversation_id \
        AND x.seq > i.low AND x.seq <= i.high AND x.sender_id <> i.user_id ORDER BY x.seq DESC LIMIT $5) x \
    WHERE EXISTS (SELECT 1 FROM members s WHERE s.conversation_id = i.conversation_id AND s.user_id = x.sender_id \
            AND s.state = 'accepted' OFFSET 0) \
        AND NOT EXISTS (SELECT 1 FROM blocks b WHERE b.blocker = i.user_id AND b.blocked = x.sender_id OFFSET 0) \
        AND NOT EXISTS (SELECT 1 FROM blocks b WHERE b.blocker = x.sender_id AND b.blocked = i.user_id OFFSET 0) \
    ORDER BY i.place, x.seq";

const UPDATE: &str = "UPDATE members m SET read_seq = greatest(m.read_seq, i.read_seq), \
        seen_seq = greatest(m.seen_seq, i.read_seq), delivered_seq = greatest(m.delivered_seq, i.delivered_seq) \
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) AS i(conversation_id, user_id, read_seq, delivered_seq) \
    WHERE m.conversation_id = i.conversation_id AND m.user_id = i.user_id";

async fn apply(
    client: &mut Object,
    receipts: &[Receipt],
    row: &OutboxRow<Vec<Result<ReceiptChange, Refusal>>>,
) -> Result<Vec<Result<ReceiptChange, Refusal>>, StoreError> {
    let transaction = client.transaction().await?;
    let places = places(&transaction, receipts).await?;
    let mut advance = Advance::default();
    let moves: Vec<Result<Move, Refusal>> =
        receipts.iter().zip(&places).map(|(receipt, (place, _))| advance.apply(receipt, place)).collect();
    let covered = move_and_count(&transaction, receipts, &moves, &advance).await?;
    let changes: Vec<_> = moves
        .into_iter()
        .zip(&places)
        .zip(covered)
        .map(|((step, (place, at)), covered)| {
            step.map(|step| ReceiptChange {
                up_to_seq: step.to,
                up_to: covered.up_to,
                marked_count: covered.marked_count,
                by_sender: covered.by_sender.into_iter().collect(),
                last_seq: place.last_seq,
                moved: step.to > step.from,
                at: *at,
            })
        })
        .collect();
    outbox::write(&transaction, row, &changes).await?;
    transaction.commit().await?;
    Ok(changes)
}

/// Locks the members' rows, and then reads them: the second statement sees all commits from before the lock.
async fn places(client: &impl GenericClient, receipts: &[Receipt]) -> Result<Vec<(Place, Timestamp)>, StoreError> {
    let conversations: Vec<&str> = receipts.iter().map(|receipt| receipt.conversation.as_str()).collect();
    let users: Vec<&str> = receipts.iter().map(|receipt| receipt.user.as_str()).collect();
    let named: Vec<Option<i64>> = receipts.iter().map(|receipt| receipt.up_to.map(|id| bigint(id.get()))).collect();
    let (lock, places) = (client.prepare_cached(LOCK).await?, client.prepare_cached(PLACES).await?);
    let (_, rows) = try_join(async { client.query(&lock, &[&conversations, &users]).await }, async {
        client.query(&places, &[&conversations, &users, &named]).await
    })
    .await?;
    rows.iter().map(place).collect()
}

fn place(row: &Row) -> Result<(Place, Timestamp), StoreError> {
    let or_null = |column: &str| -> Result<Option<u64>, StoreError> {
        get::<Option<i64>>(row, column)?.map(|number| unsigned(number, column)).transpose()
    };
    let place = Place {
        visibility: word_or_null(row, "visibility", Visibility::parse)?,
        state: word_or_null(row, "state", State::parse)?,
        read_seq: or_null("read_seq")?.unwrap_or_default(),
        delivered_seq: or_null("delivered_seq")?.unwrap_or_default(),
        last_seq: or_null("last_seq")?.unwrap_or_default(),
        named_seq: or_null("named_seq")?,
    };
    Ok((place, time(row, "at")?))
}

/// The messages that a receipt newly covers.
#[derive(Default)]
struct Coverage {
    up_to: Option<MessageId>,
    marked_count: u64,
    by_sender: BTreeMap<UserId, Vec<MessageId>>,
}

/// Writes the positions, and reads in the same round trip which messages each move covers.
async fn move_and_count(
    client: &impl GenericClient,
    receipts: &[Receipt],
    moves: &[Result<Move, Refusal>],
    advance: &Advance,
) -> Result<Vec<Coverage>, StoreError> {
    let conversations: Vec<&str> = receipts.iter().map(|receipt| receipt.conversation.as_str()).collect();
    let users: Vec<&str> = receipts.iter().map(|receipt| receipt.user.as_str()).collect();
    // A refused receipt covers nothing: no message stands after 0 and up to 0.
    let step = |step: &Result<Move, Refusal>| step.unwrap_or(Move { from: 0, to: 0 });
    let low: Vec<i64> = moves.iter().map(|taken| bigint(step(taken).from)).collect();
    let high: Vec<i64> = moves.iter().map(|taken| bigint(step(taken).to)).collect();

    let moved_conversations: Vec<&str> = advance.moved().map(|(conversation, _, _)| conversation.as_str()).collect();
    let moved_users: Vec<&str> = advance.moved().map(|(_, user, _)| user.as_str()).collect();
    let read: Vec<i64> = advance.moved().map(|(_, _, positions)| bigint(positions.read_seq)).collect();
    let delivered: Vec<i64> = advance.moved().map(|(_, _, positions)| bigint(positions.delivered_seq)).collect();

    let update = client.prepare_cached(UPDATE).await?;
    let (counts, marked) = (client.prepare_cached(COUNTS).await?, client.prepare_cached(MARKED).await?);
    let most = i64::from(MARKED_IDS_MAX);
    let (_, counts, marked) = try_join3(
        async { client.execute(&update, &[&moved_conversations, &moved_users, &read, &delivered]).await },
        async { client.query(&counts, &[&conversations, &users, &low, &high]).await },
        async { client.query(&marked, &[&conversations, &users, &low, &high, &most]).await },
    )
    .await?;

    let mut covered = Vec::with_capacity(counts.len());
    for row in &counts {
        let up_to = get::<Option<i64>>(row, "up_to")?.map(|id| message_id(id, "up_to")).transpose()?;
        covered.push(Coverage { up_to, marked_count: number(row, "marked")?, by_sender: BTreeMap::new() });
    }
    for row in &marked {
        if let Some(covered) = covered.get_mut(index(row, "place")?) {
            let sender = parsed(row, "sender_id", str::parse)?;
            covered.by_sender.entry(sender).or_default().push(message_id(get(row, "id")?, "id")?);
        }
    }
    Ok(covered)
}

async fn unread(client: &impl GenericClient, users: &[UserId]) -> Result<Vec<Vec<UnreadCount>>, StoreError> {
    let sql = "SELECT i.place, count.id, count.last_seq, count.seen_seq \
        FROM unnest($1::text[]) WITH ORDINALITY AS i(user_id, place) CROSS JOIN LATERAL (\
            SELECT c.id, c.last_seq, p.seen_seq FROM members p JOIN conversations c ON c.id = p.conversation_id \
            WHERE p.user_id = i.user_id AND p.state = 'accepted'\
        ) count ORDER BY i.place, count.id";
    let names: Vec<&str> = users.iter().map(UserId::as_str).collect();
    let mut counts = vec![Vec::new(); users.len()];
    for row in query(client, sql, &[&names]).await? {
        let count = UnreadCount {
            conversation: parsed(&row, "id", str::parse)?,
            last_seq: number(&row, "last_seq")?,
            seen_seq: number(&row, "seen_seq")?,
        };
        if let Some(of_one) = counts.get_mut(index(&row, "place")?) {
            of_one.push(count);
        }
    }
    Ok(counts)
}
