//! Outbox rows.

use async_trait::async_trait;
use rusqlite::{Connection, params};
use shared::{MessageId, UserId};

use super::owed;
use super::rows::{
    after_ms, before_ms, execute, get, integer, message, message_columns, now_ms, number, parsed, row, rows, time,
    unfit,
};
use super::thread::SqliteStore;
use crate::store::leases::future_ms;
use crate::store::notifications::{Keep, to_keep};
use crate::store::{OpenedDirect, OutboxEvent, OutboxRow, OutboxRows, Owner, PendingRow, StoreError, StoredMessage};

/// How many rows one pruning deletes.
const PRUNE_ROWS_MAX: i64 = 10_000;

#[async_trait]
impl OutboxRows for SqliteStore {
    async fn enqueue(&self, id: u64, owner: &Owner, events: &[OutboxEvent]) -> Result<(), StoreError> {
        let (owner, events) = (owner.clone(), events.to_vec());
        self.write(move |change| insert(change, id, &owner, &events)).await
    }

    async fn mark_published(&self, rows: &[u64], server: &str) -> Result<(), StoreError> {
        let (rows, server) = (rows.to_vec(), server.to_owned());
        self.write(move |change| mark_published(change, &rows, &server)).await
    }

    async fn take_unpublished(
        &self,
        owner: &Owner,
        lease_ms: u64,
        min_age_ms: u64,
        page: (u64, u32),
    ) -> Result<Vec<PendingRow>, StoreError> {
        let owner = owner.clone();
        self.write(move |change| take_unpublished(change, &owner, (lease_ms, min_age_ms), page)).await
    }

    async fn narrow(&self, row: u64, lacking: &[UserId]) -> Result<(), StoreError> {
        let lacking = serde_json::to_string(lacking).map_err(|fault| StoreError::Failed(fault.to_string()))?;
        let sql = "UPDATE outbox SET lacking = ?2 WHERE id = ?1 AND published_at IS NULL";
        self.write(move |change| execute(change, sql, params![integer(row), lacking]).map(drop)).await
    }

    async fn stored(&self, messages: &[MessageId]) -> Result<Vec<(StoredMessage, u64)>, StoreError> {
        let ids = messages.to_vec();
        self.read(move |view| {
            let mut found = Vec::with_capacity(ids.len());
            for id in ids {
                if let Some(stored) = stored(view, id.get())? {
                    let age_ms = now_ms() - stored.message.created_at.unix_ms();
                    found.push((stored, u64::try_from(age_ms).unwrap_or(0)));
                }
            }
            Ok(found)
        })
        .await
    }

    async fn published_elsewhere(&self, server: &str, after: u64, limit: u32) -> Result<Vec<PendingRow>, StoreError> {
        let server = server.to_owned();
        self.read(move |read| published_elsewhere(read, &server, after, limit)).await
    }

    async fn prune_outbox(&self, age_ms: u64) -> Result<u64, StoreError> {
        self.write(move |change| prune(change, age_ms)).await
    }

    async fn outbox_age_ms(&self) -> Result<u64, StoreError> {
        self.read(|read| age_ms(read)).await
    }
}

/// Writes the row of a change, inside its transaction. No events, no row.
pub(super) fn write<T>(change: &Connection, row: &OutboxRow<T>, of: &T) -> Result<(), StoreError> {
    insert(change, row.id, &row.owner, &(row.events)(of))?;
    owed::write(change, &row.owed(of))
}

fn insert(change: &Connection, id: u64, owner: &str, events: &[OutboxEvent]) -> Result<(), StoreError> {
    if events.is_empty() {
        return Ok(());
    }
    keep_notifications(change, &to_keep(events))?;
    let events = serde_json::to_string(events).map_err(|fault| StoreError::Failed(fault.to_string()))?;
    // A second try after an uncertain commit finds the row there.
    let sql = "INSERT INTO outbox (id, owner, committed_at, events) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
    execute(change, sql, params![integer(id), owner, now_ms(), events]).map(drop)
}

/// Keeps the notifications of a row, inside its transaction.
fn keep_notifications(change: &Connection, keep: &[Keep<'_>]) -> Result<(), StoreError> {
    let now = now_ms();
    for Keep { id, payload, users } in keep {
        for user in *users {
            let sql = "INSERT INTO notifications (user_id, id, payload, created_at) VALUES (?1, ?2, ?3, ?4) \
                ON CONFLICT DO NOTHING";
            execute(change, sql, params![user.as_str(), integer(id.get()), payload, now])?;
        }
    }
    Ok(())
}

fn mark_published(change: &Connection, ids: &[u64], server: &str) -> Result<(), StoreError> {
    let now = now_ms();
    for id in ids {
        let sql = "UPDATE outbox SET published_at = ?2, server = ?3 WHERE id = ?1 \
            AND NOT EXISTS (SELECT 1 FROM retired_backbones r WHERE instr('-' || ?3 || '-', '-' || r.server || '-') > 0)";
        execute(change, sql, params![integer(*id), now, server])?;
    }
    Ok(())
}

fn take_unpublished(
    change: &Connection,
    owner: &str,
    (lease_ms, min_age_ms): (u64, u64),
    (after, limit): (u64, u32),
) -> Result<Vec<PendingRow>, StoreError> {
    let sql = "SELECT o.id, o.owner, o.committed_at, o.message_ids, o.opened, o.events, o.lacking FROM outbox o \
        WHERE o.published_at IS NULL AND (o.committed_at <= ?3 OR o.committed_at > ?6) AND (o.owner = ?1 \
            OR (substr(o.owner, 1, length(?5)) = ?5 AND instr(substr(o.owner, length(?5) + 1), ':') = 0) \
            OR NOT EXISTS (SELECT 1 FROM leases l WHERE l.owner = o.owner AND l.beaten_at > ?2 \
                AND l.beaten_at <= ?6)) \
            AND coalesce((o.committed_at, o.id) > (SELECT a.committed_at, a.id FROM outbox a WHERE a.id = ?7), 1) \
        ORDER BY o.committed_at, o.id LIMIT ?4";
    // The node's name with its colon: what stands before the last one.
    let node = owner.rsplit_once(':').map_or_else(|| format!("{owner}:"), |(node, _)| format!("{node}:"));
    let (leased, aged, future) = (before_ms(lease_ms), before_ms(min_age_ms), after_ms(future_ms()));
    let parameters = params![owner, leased, aged, limit, node, future, integer(after)];
    let taken = pending(change, sql, parameters)?;
    for row in &taken {
        execute(change, "UPDATE outbox SET owner = ?2 WHERE id = ?1", params![integer(row.id), owner])?;
    }
    Ok(taken)
}

fn published_elsewhere(view: &Connection, server: &str, after: u64, limit: u32) -> Result<Vec<PendingRow>, StoreError> {
    let sql = "SELECT o.id, o.owner, o.committed_at, o.message_ids, o.opened, o.events, o.lacking FROM outbox o \
        WHERE o.published_at IS NOT NULL AND o.server <> ?1 AND coalesce(\
            (o.committed_at, o.id) > (SELECT a.committed_at, a.id FROM outbox a WHERE a.id = ?2), 1) \
        ORDER BY o.committed_at, o.id LIMIT ?3";
    pending(view, sql, params![server, integer(after), limit])
}

fn prune(change: &Connection, age_ms: u64) -> Result<u64, StoreError> {
    let sql = "DELETE FROM outbox WHERE id IN (SELECT o.id FROM outbox o \
        WHERE o.published_at <= ?1 AND o.server = (SELECT b.server FROM backbone b) ORDER BY o.published_at LIMIT ?2)";
    let deleted = execute(change, sql, params![before_ms(age_ms), PRUNE_ROWS_MAX])?;
    Ok(u64::try_from(deleted).unwrap_or(u64::MAX))
}

fn age_ms(view: &Connection) -> Result<u64, StoreError> {
    let sql = "SELECT min(committed_at) AS oldest FROM outbox WHERE published_at IS NULL";
    let oldest: Option<i64> = row(view, sql, [], |row| get(row, "oldest"))?.flatten();
    Ok(oldest.map_or(0, |oldest| u64::try_from(now_ms() - oldest).unwrap_or_default()))
}

/// Rows with their messages, as these are now.
fn pending(view: &Connection, sql: &str, parameters: impl rusqlite::Params) -> Result<Vec<PendingRow>, StoreError> {
    let json = |fault: serde_json::Error| StoreError::Failed(format!("a row of the outbox: {fault}"));
    let found = rows(view, sql, parameters, |row| {
        let ids: Vec<u64> = serde_json::from_str(&get::<String>(row, "message_ids")?).map_err(json)?;
        let opened = get::<Option<String>>(row, "opened")?;
        let opened: Vec<String> =
            opened.map_or_else(|| Ok(Vec::new()), |opened| serde_json::from_str(&opened)).map_err(json)?;
        let pending = PendingRow {
            id: number(row, "id")?,
            owner: get(row, "owner")?,
            committed_at: time(row, "committed_at")?,
            opened: Vec::new(),
            messages: Vec::new(),
            events: serde_json::from_str(&get::<String>(row, "events")?).map_err(json)?,
            lacking: get::<Option<String>>(row, "lacking")?
                .map(|users| serde_json::from_str(&users))
                .transpose()
                .map_err(json)?,
        };
        Ok((pending, ids, opened))
    })?;
    found
        .into_iter()
        .map(|(mut pending, ids, opened)| {
            for id in opened {
                pending.opened.extend(opened_direct(view, &id)?);
            }
            for id in ids {
                pending.messages.extend(stored(view, id)?);
            }
            Ok(pending)
        })
        .collect()
}

/// A direct conversation that a batch opened.
pub(super) fn opened_direct(view: &Connection, id: &str) -> Result<Option<OpenedDirect>, StoreError> {
    let sql = "SELECT id, pair_key, created_at FROM conversations WHERE id = ?1 AND pair_key IS NOT NULL";
    row(view, sql, [id], |row| {
        let key: String = get(row, "pair_key")?;
        let direct = OpenedDirect::with_key(parsed(row, "id", str::parse)?, &key, time(row, "created_at")?);
        direct.ok_or_else(|| unfit("pair_key"))
    })
}

fn stored(view: &Connection, id: u64) -> Result<Option<StoredMessage>, StoreError> {
    let sql = concat!(
        "SELECT ",
        message_columns!(),
        ", c.members_version FROM messages m JOIN conversations c ON c.id = m.conversation_id WHERE m.id = ?1"
    );
    row(view, sql, [integer(id)], |row| {
        Ok(StoredMessage { message: message(row)?, members_version: number(row, "members_version")? })
    })
}
