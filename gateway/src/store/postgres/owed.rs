//! What a change owes a backend's webhook.
//!
//! The statement that calls a changing function also writes its events: behind the lock that the function took, so that ids
//! are in order within a conversation. Without the setting there are no events, and the statement is the call alone.

use deadpool_postgres::GenericClient;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::rows::bigint;
use crate::store::{OwedEvent, StoreError};

/// `parley_send_plain`, with what the webhook is owed for it.
pub(super) const SEND_PLAIN_OWING: &str = "WITH sent AS MATERIALIZED (\
        SELECT * FROM parley_send_plain($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)\
    ), owed AS (\
        INSERT INTO webhook_events (kind, conversation_id, rev, message_id, at) \
        SELECT 'message.created', ($4::text[])[i.place], s.out_revs[i.place] + i.number, i.id, s.out_created_at \
        FROM sent s CROSS JOIN LATERAL unnest($10::bigint[], $11::bigint[], $12::bigint[]) AS i(id, place, number) \
        WHERE s.out_seqs IS NOT NULL ORDER BY i.place, i.number\
    ) SELECT * FROM sent";

/// `parley_send_first`, with what the webhook is owed for it.
pub(super) const SEND_FIRST_OWING: &str = "WITH sent AS MATERIALIZED (\
        SELECT * FROM parley_send_first($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, \
            $19, $20, $21)\
    ), owed AS (\
        INSERT INTO webhook_events (kind, conversation_id, rev, message_id, at) \
        SELECT o.kind, o.conversation_id, o.rev, o.message_id, o.at FROM (\
            SELECT 'conversation.created' AS kind, i.id AS conversation_id, NULL::bigint AS rev, NULL::bigint AS message_id, \
                s.out_opened_at AS at, 0::bigint AS place, 0::bigint AS number \
            FROM sent s CROSS JOIN LATERAL unnest(s.out_opened) AS i(id) WHERE s.out_seqs IS NOT NULL \
            UNION ALL \
            SELECT 'message.created', s.out_conversations[i.place], s.out_revs[i.place] + i.number, i.id, s.out_created_at, \
                i.place, i.number \
            FROM sent s CROSS JOIN LATERAL unnest($10::bigint[], $11::bigint[], $12::bigint[]) AS i(id, place, number) \
            WHERE s.out_seqs IS NOT NULL\
        ) o ORDER BY o.place, o.number\
    ) SELECT * FROM sent";

/// `parley_send_judged`, with what the webhook is owed for it. A batch that was there before has its events.
pub(super) const SEND_JUDGED_OWING: &str = "WITH sent AS MATERIALIZED (\
        SELECT * FROM parley_send_judged($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)\
    ), owed AS (\
        INSERT INTO webhook_events (kind, conversation_id, rev, message_id, at) \
        SELECT o.kind, o.conversation_id, o.rev, o.message_id, o.at FROM (\
            SELECT DISTINCT 'conversation.created' AS kind, s.out_target AS conversation_id, NULL::bigint AS rev, \
                NULL::bigint AS message_id, s.out_opened_at AS at, 0::bigint AS place \
            FROM sent s WHERE s.out_outcome = 'stored' AND s.out_id IS NULL AND s.out_opened_at IS NOT NULL \
            UNION ALL \
            SELECT 'message.created', s.out_target, s.out_rev, ($3::bigint[])[s.out_place], s.out_created_at, s.out_place \
            FROM sent s WHERE s.out_outcome = 'stored' AND s.out_id IS NULL\
        ) o ORDER BY o.place\
    ) SELECT * FROM sent ORDER BY out_place";

/// The events of a change, as arrays.
pub(super) struct OwedArguments {
    kinds: Vec<&'static str>,
    conversations: Vec<String>,
    counts_rev: Vec<bool>,
    messages: Vec<Option<i64>>,
    details: Vec<Option<String>>,
}

/// What the answer of a changing function tells: whether the change was made, and its `rev` (`NULL` where it has none).
#[derive(Clone, Copy)]
pub(super) struct Made {
    pub(super) when: &'static str,
    pub(super) rev: &'static str,
}

impl OwedArguments {
    pub(super) fn of(events: &[OwedEvent]) -> Result<Option<Self>, StoreError> {
        if events.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self {
            kinds: events.iter().map(|event| event.kind.as_str()).collect(),
            conversations: events.iter().map(|event| event.conversation.to_string()).collect(),
            counts_rev: events.iter().map(|event| event.rev.is_some()).collect(),
            messages: events.iter().map(|event| event.message.map(|id| bigint(id.get()))).collect(),
            details: events.iter().map(OwedEvent::detail_column).collect::<Result<_, _>>()?,
        }))
    }

    /// Calls the changing function of `sql`, and writes the events if it made the change.
    pub(super) async fn call(
        &self,
        client: &impl GenericClient,
        sql: &'static str,
        arguments: &[&(dyn ToSql + Sync)],
        made: Made,
    ) -> Result<Option<Row>, StoreError> {
        let Made { when, rev } = made;
        let [a, b, c, d, e] = [1, 2, 3, 4, 5].map(|place| arguments.len() + place);
        let sql = format!(
            "WITH done AS MATERIALIZED ({sql}), owed AS (\
                INSERT INTO webhook_events (kind, conversation_id, rev, message_id, detail) \
                SELECT e.kind, e.conversation_id, CASE WHEN e.counts_rev THEN {rev} END, e.message_id, e.detail \
                FROM done CROSS JOIN LATERAL \
                    unnest(${a}::text[], ${b}::text[], ${c}::boolean[], ${d}::bigint[], ${e}::text[]) WITH ORDINALITY \
                    AS e(kind, conversation_id, counts_rev, message_id, detail, place) \
                WHERE {when} ORDER BY e.place\
            ) SELECT * FROM done"
        );
        let Self { kinds, conversations, counts_rev, messages, details } = self;
        let own: [&(dyn ToSql + Sync); 5] = [kinds, conversations, counts_rev, messages, details];
        let all: Vec<&(dyn ToSql + Sync)> = arguments.iter().copied().chain(own).collect();
        let statement = client.prepare_cached(&sql).await?;
        Ok(client.query(&statement, &all).await?.into_iter().next())
    }
}

/// Writes the events of a change, inside its transaction.
pub(super) async fn write(client: &impl GenericClient, events: &[OwedEvent]) -> Result<(), StoreError> {
    let Some(owed) = OwedArguments::of(events)? else { return Ok(()) };
    let made = Made { when: "true", rev: "NULL::bigint" };
    owed.call(client, "SELECT 1", &[], made).await.map(drop)
}
