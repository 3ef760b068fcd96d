//! Receipts and unread counts: positions of members, moved in batches.

use std::collections::BTreeMap;

use async_trait::async_trait;
use deadpool_postgres::{GenericClient, Object};
use futures_util::future::try_join;
use shared::{ConversationId, MessageId, Timestamp, UserId, Visibility};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::call::{on_connection, query, query_opt};
use super::outbox::RowArguments;
use super::pool::PostgresStore;
use super::rows::{bigint, get, index, message_id, number, parsed, time, unfit, unsigned, word_or_null};
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

    async fn unread_in(&self, places: &[(UserId, ConversationId)]) -> Result<Vec<Option<UnreadCount>>, StoreError> {
        on_connection!(self, client => unread_in(client, places))
    }
}

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

/// How often a batch is tried again because one of its positions was moved in between. After that it is written anyway:
/// positions are only ever raised, and at worst some messages are told as read twice.
const TRIES: u32 = 3;

type Changes = Vec<Result<ReceiptChange, Refusal>>;

async fn apply(client: &Object, receipts: &[Receipt], row: &OutboxRow<Changes>) -> Result<Changes, StoreError> {
    let mut tried = 0;
    loop {
        tried += 1;
        if let Some(changes) = try_once(client, receipts, row, tried == TRIES).await? {
            return Ok(changes);
        }
    }
}

/// Reads, decides, and has it written by one call; `None` if something was moved in between, unless `anyway`.
async fn try_once(
    client: &Object,
    receipts: &[Receipt],
    row: &OutboxRow<Changes>,
    anyway: bool,
) -> Result<Option<Changes>, StoreError> {
    let places = places(client, receipts).await?;
    let mut advance = Advance::default();
    let moves: Vec<Result<Move, Refusal>> =
        receipts.iter().zip(&places).map(|(receipt, (place, _))| advance.apply(receipt, place)).collect();
    let covered = covered(client, receipts, &moves).await?;
    let changes: Changes = moves
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
    let is_written = write(client, receipts, &places, &advance, anyway, &RowArguments::of(row, &changes)?).await?;
    Ok(is_written.then_some(changes))
}

async fn write(
    client: &impl GenericClient,
    receipts: &[Receipt],
    places: &[(Place, Timestamp)],
    advance: &Advance,
    anyway: bool,
    row: &RowArguments,
) -> Result<bool, StoreError> {
    let found: BTreeMap<(&ConversationId, &UserId), &Place> = receipts
        .iter()
        .zip(places)
        .map(|(receipt, (place, _))| ((&receipt.conversation, &receipt.user), place))
        .collect();
    let (mut conversations, mut users) = (Vec::new(), Vec::new());
    let (mut old_reads, mut old_delivereds, mut reads, mut delivereds) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (conversation, user, positions) in advance.moved() {
        let Some(place) = found.get(&(conversation, user)) else { continue };
        conversations.push(conversation.as_str());
        users.push(user.as_str());
        old_reads.push(bigint(place.read_seq));
        old_delivereds.push(bigint(place.delivered_seq));
        reads.push(bigint(positions.read_seq));
        delivereds.push(bigint(positions.delivered_seq));
    }
    let sql = "SELECT parley_move_positions($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) AS moved";
    let own: [&(dyn ToSql + Sync); 7] =
        [&conversations, &users, &old_reads, &old_delivereds, &reads, &delivereds, &anyway];
    let answer = query_opt(client, sql, &row.behind(&own)).await?.ok_or_else(|| unfit("moved"))?;
    get(&answer, "moved")
}

async fn places(client: &impl GenericClient, receipts: &[Receipt]) -> Result<Vec<(Place, Timestamp)>, StoreError> {
    let conversations: Vec<&str> = receipts.iter().map(|receipt| receipt.conversation.as_str()).collect();
    let users: Vec<&str> = receipts.iter().map(|receipt| receipt.user.as_str()).collect();
    let named: Vec<Option<i64>> = receipts.iter().map(|receipt| receipt.up_to.map(|id| bigint(id.get()))).collect();
    query(client, PLACES, &[&conversations, &users, &named]).await?.iter().map(place).collect()
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

/// Which messages each move covers.
async fn covered(
    client: &impl GenericClient,
    receipts: &[Receipt],
    moves: &[Result<Move, Refusal>],
) -> Result<Vec<Coverage>, StoreError> {
    let conversations: Vec<&str> = receipts.iter().map(|receipt| receipt.conversation.as_str()).collect();
    let users: Vec<&str> = receipts.iter().map(|receipt| receipt.user.as_str()).collect();
    // A refused receipt covers nothing: no message stands after 0 and up to 0.
    let step = |step: &Result<Move, Refusal>| step.unwrap_or(Move { from: 0, to: 0 });
    let low: Vec<i64> = moves.iter().map(|taken| bigint(step(taken).from)).collect();
    let high: Vec<i64> = moves.iter().map(|taken| bigint(step(taken).to)).collect();

    let (counts, marked) = (client.prepare_cached(COUNTS).await?, client.prepare_cached(MARKED).await?);
    let most = i64::from(MARKED_IDS_MAX);
    let (counts, marked) =
        try_join(async { client.query(&counts, &[&conversations, &users, &low, &high]).await }, async {
            client.query(&marked, &[&conversations, &users, &low, &high, &most]).await
        })
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
        if let Some(of_one) = counts.get_mut(index(&row, "place")?) {
            of_one.push(count(&row)?);
        }
    }
    Ok(counts)
}

async fn unread_in(
    client: &impl GenericClient,
    places: &[(UserId, ConversationId)],
) -> Result<Vec<Option<UnreadCount>>, StoreError> {
    let sql = "SELECT i.place, c.id, c.last_seq, p.seen_seq \
        FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS i(user_id, conversation_id, place) \
        JOIN members p ON p.conversation_id = i.conversation_id AND p.user_id = i.user_id AND p.state = 'accepted' \
        JOIN conversations c ON c.id = i.conversation_id";
    let users: Vec<&str> = places.iter().map(|(user, _)| user.as_str()).collect();
    let conversations: Vec<&str> = places.iter().map(|(_, conversation)| conversation.as_str()).collect();
    let mut counts = vec![None; places.len()];
    for row in query(client, sql, &[&users, &conversations]).await? {
        if let Some(of_one) = counts.get_mut(index(&row, "place")?) {
            *of_one = Some(count(&row)?);
        }
    }
    Ok(counts)
}

fn count(row: &Row) -> Result<UnreadCount, StoreError> {
    Ok(UnreadCount {
        conversation: parsed(row, "id", str::parse)?,
        last_seq: number(row, "last_seq")?,
        seen_seq: number(row, "seen_seq")?,
    })
}
