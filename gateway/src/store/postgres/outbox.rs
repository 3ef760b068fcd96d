//! Outbox rows.
//!
//! Rows come and go by the thousand, and a plan may have been made while there was none. So an array, made once, names
//! the rows that are changed, which leaves only the primary key. With `IN (SELECT …)` or a join, the planner might read
//! all rows and look each one up among those that are due. Ages are compared with `statement_timestamp()`, because an
//! index can't be searched for a value that changes during the search.

use std::collections::HashMap;

use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use shared::{MessageId, UserId};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::call::{execute, on_connection, query, query_opt};
use super::owed::{self, Made, OwedArguments};
use super::pool::PostgresStore;
use super::rows::{bigint, get, message, message_columns, number, parsed, time, unfit};
use crate::store::leases::future_ms;
use crate::store::notifications::{Keep, to_keep};
use crate::store::{OpenedDirect, OutboxEvent, OutboxRow, OutboxRows, Owner, PendingRow, StoreError, StoredMessage};

/// How many rows one pruning deletes.
const PRUNE_ROWS_MAX: i64 = 10_000;

#[async_trait]
impl OutboxRows for PostgresStore {
    async fn enqueue(&self, id: u64, owner: &Owner, events: &[OutboxEvent]) -> Result<(), StoreError> {
        on_connection!(self, Change: client => insert(client, id, owner, events))
    }

    async fn mark_published(&self, rows: &[u64], server: &str) -> Result<(), StoreError> {
        on_connection!(self, Control: client => mark_published(client, rows, server))
    }

    async fn take_unpublished(
        &self,
        owner: &Owner,
        lease_ms: u64,
        min_age_ms: u64,
        page: (u64, u32),
    ) -> Result<Vec<PendingRow>, StoreError> {
        on_connection!(self, Commit: client => take_unpublished(client, owner, (lease_ms, min_age_ms), page))
    }

    async fn narrow(&self, row: u64, lacking: &[UserId]) -> Result<(), StoreError> {
        on_connection!(self, Commit: client => narrow(client, row, lacking))
    }

    async fn stored(&self, messages: &[MessageId]) -> Result<Vec<(StoredMessage, u64)>, StoreError> {
        let ids: Vec<i64> = messages.iter().map(|id| bigint(id.get())).collect();
        on_connection!(self, client => stored(client, &ids))
    }

    async fn published_elsewhere(&self, server: &str, after: u64, limit: u32) -> Result<Vec<PendingRow>, StoreError> {
        on_connection!(self, Commit: client => published_elsewhere(client, server, after, limit))
    }

    async fn prune_outbox(&self, age_ms: u64) -> Result<u64, StoreError> {
        on_connection!(self, Commit: client => prune(client, age_ms))
    }

    async fn outbox_age_ms(&self) -> Result<u64, StoreError> {
        on_connection!(self, Control: client => age_ms(client))
    }
}

/// Writes the row of a change, inside its transaction. No events, no row.
pub(super) async fn write<T>(client: &impl GenericClient, row: &OutboxRow<T>, change: &T) -> Result<(), StoreError> {
    insert(client, row.id, &row.owner, &(row.events)(change)).await?;
    owed::write(client, &row.owed(change)).await
}

/// The outbox row of a change, as the arguments of the function that makes the change (`parley_write_row`).
pub(super) struct RowArguments {
    id: i64,
    owner: String,
    events: Option<String>,
    users: Vec<String>,
    of: Vec<i64>,
    notifications: Vec<i64>,
    payloads: Vec<String>,
    owed: Option<OwedArguments>,
}

impl RowArguments {
    pub(super) fn of<T>(row: &OutboxRow<T>, change: &T) -> Result<Self, StoreError> {
        let events = (row.events)(change);
        let keep = to_keep(&events);
        let notifications: Vec<i64> = keep.iter().map(|keep| bigint(keep.id.get())).collect();
        let payloads = keep.iter().map(|keep| keep.payload.to_owned()).collect();
        let pairs = keep
            .iter()
            .zip(&notifications)
            .flat_map(|(keep, id)| keep.users.iter().map(|user| (user.to_string(), *id)));
        let (users, of) = pairs.unzip();
        let events = match events.is_empty() {
            true => None,
            false => Some(serde_json::to_string(&events).map_err(|fault| StoreError::Failed(fault.to_string()))?),
        };
        let (id, owner, owed) = (bigint(row.id), row.owner.to_string(), OwedArguments::of(&row.owed(change))?);
        Ok(Self { id, owner, events, users, of, notifications, payloads, owed })
    }

    /// A function's own arguments, and these behind them.
    pub(super) fn behind<'a>(&'a self, own: &[&'a (dyn ToSql + Sync)]) -> Vec<&'a (dyn ToSql + Sync)> {
        let Self { id, owner, events, users, of, notifications, payloads, owed: _ } = self;
        let mut all = own.to_vec();
        let row: [&(dyn ToSql + Sync); 7] = [id, owner, events, users, of, notifications, payloads];
        all.extend(row);
        all
    }

    /// Calls the function of `sql` with its own arguments and these, and writes what the webhook is owed, if it is owed
    /// anything and the function made the change.
    pub(super) async fn call(
        &self,
        client: &impl GenericClient,
        sql: &'static str,
        own: &[&(dyn ToSql + Sync)],
        made: Made,
    ) -> Result<Option<Row>, StoreError> {
        match &self.owed {
            Some(owed) => owed.call(client, sql, &self.behind(own), made).await,
            None => query_opt(client, sql, &self.behind(own)).await,
        }
    }
}

async fn insert(client: &impl GenericClient, id: u64, owner: &str, events: &[OutboxEvent]) -> Result<(), StoreError> {
    if events.is_empty() {
        return Ok(());
    }
    let keep = to_keep(events);
    let events = serde_json::to_string(events).map_err(|fault| StoreError::Failed(fault.to_string()))?;
    if !keep.is_empty() {
        return insert_with_notifications(client, (id, owner, &events), &keep).await;
    }
    // A second try after an uncertain commit finds the row there.
    let sql = "INSERT INTO outbox (id, owner, committed_at, events) \
        VALUES ($1, $2, date_trunc('milliseconds', clock_timestamp()), $3) ON CONFLICT (id) DO NOTHING";
    execute(client, sql, &[&bigint(id), &owner, &events]).await.map(drop)
}

/// Writes an outbox row and keeps its notifications: one statement, because not every caller has a transaction.
async fn insert_with_notifications(
    client: &impl GenericClient,
    (id, owner, events): (u64, &str, &str),
    keep: &[Keep<'_>],
) -> Result<(), StoreError> {
    let sql = "WITH kept AS (\
            INSERT INTO notifications (user_id, id, payload, created_at) \
            SELECT u.user_id, n.id, n.payload, date_trunc('milliseconds', clock_timestamp()) \
            FROM unnest($4::text[], $5::bigint[]) AS u(user_id, id) \
            JOIN unnest($6::bigint[], $7::text[]) AS n(id, payload) ON n.id = u.id \
            ORDER BY u.user_id COLLATE \"C\", n.id ON CONFLICT DO NOTHING) \
        INSERT INTO outbox (id, owner, committed_at, events) \
        VALUES ($1, $2, date_trunc('milliseconds', clock_timestamp()), $3) ON CONFLICT (id) DO NOTHING";
    let ids: Vec<i64> = keep.iter().map(|keep| bigint(keep.id.get())).collect();
    let payloads: Vec<&str> = keep.iter().map(|keep| keep.payload).collect();
    let pairs = keep.iter().zip(&ids).flat_map(|(keep, id)| keep.users.iter().map(|user| (user.as_str(), *id)));
    let (users, of): (Vec<&str>, Vec<i64>) = pairs.unzip();
    execute(client, sql, &[&bigint(id), &owner, &events, &users, &of, &ids, &payloads]).await.map(drop)
}

async fn mark_published(client: &impl GenericClient, rows: &[u64], server: &str) -> Result<(), StoreError> {
    let ids: Vec<i64> = rows.iter().map(|id| bigint(*id)).collect();
    let sql = "UPDATE outbox SET published_at = clock_timestamp(), server = $2 WHERE id = ANY (ARRAY(\
            SELECT o.id FROM outbox o WHERE o.id = ANY ($1) ORDER BY o.id FOR UPDATE SKIP LOCKED)) \
        AND NOT EXISTS (SELECT 1 FROM retired_backbones r WHERE r.server = ANY (string_to_array($2, '-')))";
    execute(client, sql, &[&ids, &server]).await.map(drop)
}

async fn take_unpublished(
    client: &impl GenericClient,
    owner: &str,
    (lease_ms, min_age_ms): (u64, u64),
    (after, limit): (u64, u32),
) -> Result<Vec<PendingRow>, StoreError> {
    let sql = "WITH due AS MATERIALIZED (\
            SELECT o.id, o.owner AS was FROM outbox o \
            WHERE o.published_at IS NULL \
                AND (o.committed_at <= statement_timestamp() - $3::bigint * interval '1 millisecond' \
                    OR o.committed_at > statement_timestamp() + $5::bigint * interval '1 millisecond') \
                AND (o.owner = $1 \
                    OR regexp_replace(o.owner, ':[^:]*$', '') = regexp_replace($1, ':[^:]*$', '') \
                    OR NOT EXISTS (SELECT 1 FROM leases l WHERE l.owner = o.owner \
                        AND l.beaten_at > clock_timestamp() - $2::bigint * interval '1 millisecond' \
                        AND l.beaten_at <= clock_timestamp() + $5::bigint * interval '1 millisecond')) \
                AND coalesce((o.committed_at, o.id) > (SELECT a.committed_at, a.id FROM outbox a WHERE a.id = $6), true) \
            ORDER BY o.committed_at, o.id LIMIT $4 FOR UPDATE OF o SKIP LOCKED\
        ), taken AS (\
            UPDATE outbox o SET owner = $1 FROM due WHERE o.id = due.id AND o.id = ANY (ARRAY(SELECT id FROM due)) \
            RETURNING o.id, due.was, o.committed_at, o.message_ids, o.opened, o.events, o.lacking\
        ) SELECT * FROM taken ORDER BY committed_at, id";
    let (lease, min_age, future) = (bigint(lease_ms), bigint(min_age_ms), bigint(future_ms()));
    let rows = query(client, sql, &[&owner, &lease, &min_age, &i64::from(limit), &future, &bigint(after)]).await?;
    pending(client, &rows).await
}

async fn narrow(client: &impl GenericClient, row: u64, lacking: &[UserId]) -> Result<(), StoreError> {
    let lacking: Vec<&str> = lacking.iter().map(UserId::as_str).collect();
    let sql = "UPDATE outbox SET lacking = $2 WHERE id = $1 AND published_at IS NULL";
    execute(client, sql, &[&bigint(row), &lacking]).await.map(drop)
}

async fn published_elsewhere(
    client: &impl GenericClient,
    server: &str,
    after: u64,
    limit: u32,
) -> Result<Vec<PendingRow>, StoreError> {
    let sql = "SELECT o.id, o.owner AS was, o.committed_at, o.message_ids, o.opened, o.events, o.lacking FROM outbox o \
        WHERE o.published_at IS NOT NULL AND o.server <> $1 \
            AND coalesce((o.committed_at, o.id) > (SELECT a.committed_at, a.id FROM outbox a WHERE a.id = $2), true) \
        ORDER BY o.committed_at, o.id LIMIT $3";
    let rows = query(client, sql, &[&server, &bigint(after), &i64::from(limit)]).await?;
    pending(client, &rows).await
}

async fn prune(client: &impl GenericClient, age_ms: u64) -> Result<u64, StoreError> {
    let sql = "DELETE FROM outbox WHERE id = ANY (ARRAY(\
        SELECT o.id FROM outbox o WHERE o.published_at <= statement_timestamp() - $1::bigint * interval '1 millisecond' \
            AND o.server = (SELECT b.server FROM backbone b) \
        ORDER BY o.published_at LIMIT $2 FOR UPDATE SKIP LOCKED))";
    execute(client, sql, &[&bigint(age_ms), &PRUNE_ROWS_MAX]).await
}

async fn age_ms(client: &impl GenericClient) -> Result<u64, StoreError> {
    let sql = "SELECT greatest(0, coalesce(\
        (extract(epoch FROM clock_timestamp() - min(committed_at)) * 1000)::bigint, 0)) AS age_ms \
        FROM outbox WHERE published_at IS NULL";
    match query_opt(client, sql, &[]).await? {
        Some(row) => number(&row, "age_ms"),
        None => Ok(0),
    }
}

/// Rows with their messages, as these are now, and with what they opened.
async fn pending(client: &impl GenericClient, rows: &[Row]) -> Result<Vec<PendingRow>, StoreError> {
    let (mut ids, mut opened): (Vec<i64>, Vec<&str>) = Default::default();
    for row in rows {
        ids.extend(get::<Vec<i64>>(row, "message_ids")?);
        opened.extend(opened_by(row)?);
    }
    let stored = stored(client, &ids).await?;
    let mut stored: HashMap<i64, StoredMessage> =
        stored.into_iter().map(|(stored, _)| (bigint(stored.message.id.get()), stored)).collect();
    let mut directs = directs(client, &opened).await?;
    rows.iter()
        .map(|row| {
            let named: Vec<i64> = get(row, "message_ids")?;
            let events: &str = get(row, "events")?;
            let lacking: Option<Vec<&str>> = get(row, "lacking")?;
            let lacking = lacking.map(|users| users.into_iter().map(user_id).collect::<Result<_, _>>()).transpose()?;
            Ok(PendingRow {
                id: number(row, "id")?,
                owner: get(row, "was")?,
                committed_at: time(row, "committed_at")?,
                opened: opened_by(row)?.into_iter().filter_map(|id| directs.remove(id)).collect(),
                messages: named.iter().filter_map(|id| stored.remove(id)).collect(),
                events: serde_json::from_str(events)
                    .map_err(|fault| StoreError::Failed(format!("the column events: {fault}")))?,
                lacking,
            })
        })
        .collect()
}

fn opened_by(row: &Row) -> Result<Vec<&str>, StoreError> {
    Ok(get::<Option<Vec<&str>>>(row, "opened")?.unwrap_or_default())
}

async fn directs(client: &impl GenericClient, ids: &[&str]) -> Result<HashMap<String, OpenedDirect>, StoreError> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let sql = "SELECT id, pair_key, created_at FROM conversations WHERE id = ANY ($1) AND pair_key IS NOT NULL";
    query(client, sql, &[&ids])
        .await?
        .iter()
        .map(|row| {
            let (id, key): (&str, &str) = (get(row, "id")?, get(row, "pair_key")?);
            let direct = OpenedDirect::with_key(parsed(row, "id", str::parse)?, key, time(row, "created_at")?);
            Ok((id.to_owned(), direct.ok_or_else(|| unfit("pair_key"))?))
        })
        .collect()
}

fn user_id(text: &str) -> Result<UserId, StoreError> {
    UserId::parse(text).map_err(|fault| StoreError::Failed(format!("the column lacking: {fault}")))
}

/// Messages, and the milliseconds since the commit of each.
async fn stored(client: &impl GenericClient, ids: &[i64]) -> Result<Vec<(StoredMessage, u64)>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let sql = concat!(
        "SELECT ",
        message_columns!(),
        ", c.members_version, greatest(0, (extract(epoch FROM clock_timestamp() - m.created_at) * 1000)::bigint) AS age_ms \
        FROM messages m JOIN conversations c ON c.id = m.conversation_id WHERE m.id = ANY ($1)"
    );
    query(client, sql, &[&ids])
        .await?
        .iter()
        .map(|row| {
            let stored = StoredMessage { message: message(row)?, members_version: number(row, "members_version")? };
            Ok((stored, number(row, "age_ms")?))
        })
        .collect()
}
