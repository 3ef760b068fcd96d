//! The events that a backend's webhook is owed, from their commit to their end.

use std::collections::HashMap;

use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use shared::{Conversation, ConversationId};
use tokio_postgres::Row;

use super::call::{execute, on_connection, query, query_opt};
use super::conversations::views;
use super::pool::PostgresStore;
use super::rows::{
    bigint, get, message, message_columns, message_id, number, parsed, system_time, time, unfit, unsigned,
};
use crate::store::leases::future_ms;
use crate::store::upkeep::DELETED_PER_STEP;
use crate::store::webhook_events::{COUNTED_MAX, REPEATED_PER_CALL};
use crate::store::{DueEvent, EventsLag, OwedKind, Owner, RepeatFrom, StoreError, Wanted, WebhookEvents};

#[async_trait]
impl WebhookEvents for PostgresStore {
    async fn take_webhook(&self, owner: &Owner, for_ms: u64) -> Result<bool, StoreError> {
        on_connection!(self, Control: client => take(client, owner, for_ms))
    }

    async fn due_events(&self, wanted: &Wanted, limit: u32) -> Result<Vec<DueEvent>, StoreError> {
        on_connection!(self, client => due(client, wanted, limit))
    }

    async fn mark_delivered(&self, events: &[u64]) -> Result<(), StoreError> {
        on_connection!(self, client => mark(client, events))
    }

    async fn bury_event(&self, event: u64, why: &str) -> Result<(), StoreError> {
        on_connection!(self, client => bury(client, event, why))
    }

    async fn repeat_events(&self, from: RepeatFrom) -> Result<(u64, Option<u64>), StoreError> {
        on_connection!(self, client => repeat(client, from))
    }

    async fn events_lag(&self) -> Result<EventsLag, StoreError> {
        on_connection!(self, client => lag(client))
    }

    async fn prune_events(&self, age_ms: u64, dead_age_ms: u64) -> Result<bool, StoreError> {
        on_connection!(self, client => prune(client, age_ms, dead_age_ms))
    }
}

async fn take(client: &impl GenericClient, owner: &str, for_ms: u64) -> Result<bool, StoreError> {
    let sql = "INSERT INTO webhook_lease (single, owner, until) \
        VALUES (true, $1, clock_timestamp() + $2::bigint * interval '1 millisecond') \
        ON CONFLICT (single) DO UPDATE SET owner = excluded.owner, until = excluded.until \
            WHERE webhook_lease.owner = excluded.owner OR webhook_lease.until <= clock_timestamp() \
                OR webhook_lease.until > excluded.until + $3::bigint * interval '1 millisecond'";
    Ok(execute(client, sql, &[&owner, &bigint(for_ms), &bigint(future_ms())]).await? > 0)
}

async fn due(client: &impl GenericClient, wanted: &Wanted, limit: u32) -> Result<Vec<DueEvent>, StoreError> {
    // OFFSET 0 keeps the look-up of each message by its key.
    const DUE: &str = concat!(
        "SELECT e.id, e.kind, e.conversation_id, e.rev, e.message_id, e.detail, e.at, \
            greatest(0, (extract(epoch FROM clock_timestamp() - e.at) * 1000)::bigint) AS age_ms, \
            m.id IS NOT NULL AS has_message, ",
        message_columns!(),
        " FROM (SELECT * FROM webhook_events o WHERE o.delivered_at IS NULL \
                AND (o.conversation_id = ANY ($1)) = $2 AND o.id <= $3 ORDER BY o.id LIMIT $4) e \
            LEFT JOIN LATERAL (SELECT * FROM messages f WHERE f.id = e.message_id OFFSET 0) m ON true ORDER BY e.id"
    );
    let (conversations, only, up_to) = wanted.columns();
    let rows = query(client, DUE, &[&conversations, &only, &up_to, &i64::from(limit)]).await?;
    let mut due = rows.iter().map(event).collect::<Result<Vec<_>, StoreError>>()?;
    let shown = |event: &&mut DueEvent| event.kind.shows_conversation();
    let mut ids: Vec<ConversationId> =
        due.iter_mut().filter(shown).map(|event| event.conversation_id.clone()).collect();
    ids.sort();
    ids.dedup();
    if !ids.is_empty() {
        let ids: Vec<&str> = ids.iter().map(ConversationId::as_str).collect();
        let seen = views(client, &ids, None).await?.into_iter();
        let now: HashMap<ConversationId, Conversation> =
            seen.map(|seen| (seen.conversation.id.clone(), seen.conversation)).collect();
        due.iter_mut().filter(shown).for_each(|event| event.conversation = now.get(&event.conversation_id).cloned());
    }
    Ok(due)
}

fn event(row: &Row) -> Result<DueEvent, StoreError> {
    let detail = get::<Option<&str>>(row, "detail")?.map(serde_json::from_str).transpose();
    Ok(DueEvent {
        id: number(row, "id")?,
        kind: OwedKind::parse(get(row, "kind")?).ok_or_else(|| unfit("kind"))?,
        at: time(row, "at")?,
        age_ms: number(row, "age_ms")?,
        conversation_id: parsed(row, "conversation_id", str::parse)?,
        rev: get::<Option<i64>>(row, "rev")?.map(|rev| unsigned(rev, "rev")).transpose()?,
        message_id: get::<Option<i64>>(row, "message_id")?.map(|id| message_id(id, "message_id")).transpose()?,
        message: if get(row, "has_message")? { Some(message(row)?) } else { None },
        conversation: None,
        detail: detail.map_err(|_| unfit("detail"))?.unwrap_or_default(),
    })
}

async fn mark(client: &impl GenericClient, events: &[u64]) -> Result<(), StoreError> {
    let ids: Vec<i64> = events.iter().map(|id| bigint(*id)).collect();
    let sql = "UPDATE webhook_events SET delivered_at = clock_timestamp() WHERE id = ANY ($1) AND delivered_at IS NULL";
    execute(client, sql, &[&ids]).await.map(drop)
}

async fn bury(client: &impl GenericClient, event: u64, why: &str) -> Result<(), StoreError> {
    let sql = "WITH gone AS (DELETE FROM webhook_events WHERE id = $1 RETURNING *) \
        INSERT INTO webhook_dead (id, kind, conversation_id, rev, message_id, detail, at, why) \
        SELECT g.id, g.kind, g.conversation_id, g.rev, g.message_id, g.detail, g.at, $2 FROM gone g \
        ON CONFLICT (id) DO UPDATE SET why = excluded.why, died_at = excluded.died_at";
    execute(client, sql, &[&bigint(event), &why]).await.map(drop)
}

/// One statement: a part of the events can't be owed again without the others of their conversation.
async fn repeat(client: &impl GenericClient, from: RepeatFrom) -> Result<(u64, Option<u64>), StoreError> {
    let sql = "WITH chosen AS MATERIALIZED (\
            SELECT c.id, c.is_dead FROM (\
                SELECT e.id, false AS is_dead FROM webhook_events e \
                WHERE e.delivered_at IS NOT NULL AND e.id >= $1 AND e.at >= coalesce($2, e.at) \
                UNION ALL \
                SELECT d.id, true FROM webhook_dead d WHERE d.id >= $1 AND d.at >= coalesce($2, d.at)\
            ) c ORDER BY c.id LIMIT $3\
        ), raised AS (\
            DELETE FROM webhook_dead WHERE id IN (SELECT c.id FROM chosen c WHERE c.is_dead) RETURNING *\
        ), put_back AS (\
            INSERT INTO webhook_events (id, kind, conversation_id, rev, message_id, detail, at) \
            SELECT r.id, r.kind, r.conversation_id, r.rev, r.message_id, r.detail, r.at FROM raised r \
            ON CONFLICT (id) DO NOTHING\
        ), owed AS (\
            UPDATE webhook_events SET delivered_at = NULL WHERE id IN (SELECT c.id FROM chosen c WHERE NOT c.is_dead)\
        ) SELECT count(*) AS count, max(id) AS last FROM chosen";
    let (id, time) = match from {
        RepeatFrom::Id(id) => (id, None),
        RepeatFrom::Time(time) => (0, Some(system_time(time))),
    };
    let answer = query_opt(client, sql, &[&bigint(id), &time, &i64::from(REPEATED_PER_CALL)]).await?;
    let answer = answer.ok_or_else(|| unfit("count"))?;
    let last = get::<Option<i64>>(&answer, "last")?.map(|id| unsigned(id, "last")).transpose()?;
    Ok((number(&answer, "count")?, last))
}

async fn lag(client: &impl GenericClient) -> Result<EventsLag, StoreError> {
    let sql = "SELECT (SELECT count(*) FROM (SELECT 1 FROM webhook_events WHERE delivered_at IS NULL LIMIT $1) o) AS owed, \
            (SELECT count(*) FROM (SELECT 1 FROM webhook_dead LIMIT $1) d) AS dead, \
            greatest(0, coalesce((extract(epoch FROM clock_timestamp() - (\
                SELECT e.at FROM webhook_events e WHERE e.delivered_at IS NULL ORDER BY e.id LIMIT 1)) * 1000)::bigint, 0)) \
                AS oldest_ms";
    let row = query_opt(client, sql, &[&COUNTED_MAX]).await?.ok_or_else(|| unfit("owed"))?;
    Ok(EventsLag { owed: number(&row, "owed")?, oldest_ms: number(&row, "oldest_ms")?, dead: number(&row, "dead")? })
}

async fn prune(client: &impl GenericClient, age_ms: u64, dead_age_ms: u64) -> Result<bool, StoreError> {
    let events = "DELETE FROM webhook_events WHERE id = ANY (ARRAY(\
        SELECT e.id FROM webhook_events e \
        WHERE e.delivered_at < statement_timestamp() - $1::bigint * interval '1 millisecond' \
        ORDER BY e.delivered_at LIMIT $2 FOR UPDATE SKIP LOCKED))";
    let dead = "DELETE FROM webhook_dead WHERE id = ANY (ARRAY(\
        SELECT d.id FROM webhook_dead d WHERE d.died_at < statement_timestamp() - $1::bigint * interval '1 millisecond' \
        ORDER BY d.died_at LIMIT $2 FOR UPDATE SKIP LOCKED))";
    let per_step = i64::from(DELETED_PER_STEP);
    let delivered = execute(client, events, &[&bigint(age_ms), &per_step]).await?;
    let died = execute(client, dead, &[&bigint(dead_age_ms), &per_step]).await?;
    Ok(delivered.max(died) >= u64::from(DELETED_PER_STEP))
}
