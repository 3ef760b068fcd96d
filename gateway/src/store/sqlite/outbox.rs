//! Ids, outbox rows, leases, and which backbone server rows were published under.

use std::ops::Range;

use rusqlite::{Connection, params};

use super::rows::{before_ms, execute, get, integer, message, message_columns, now_ms, number, row, rows, time};
use crate::store::notifications::{Keep, to_keep};
use crate::store::{OutboxEvent, OutboxRow, PendingRow, StoreError, StoredMessage};

/// How many rows one pruning deletes.
const PRUNE_ROWS_MAX: i64 = 10_000;

pub(super) fn reserve_ids(change: &Connection, count: u32) -> Result<Range<u64>, StoreError> {
    let sql = "UPDATE id_blocks SET next = next + ?1 WHERE name = 'all' RETURNING next";
    let end = row(change, sql, [count], |row| number(row, "next"))?
        .ok_or_else(|| StoreError::Failed("id_blocks is empty".into()))?;
    Ok(end.saturating_sub(u64::from(count))..end)
}

/// Writes the row of a change, inside its transaction. No events, no row.
pub(super) fn write<T>(change: &Connection, row: &OutboxRow<T>, of: &T) -> Result<(), StoreError> {
    insert(change, row.id, &row.owner, &(row.events)(of))
}

pub(super) fn insert(change: &Connection, id: u64, owner: &str, events: &[OutboxEvent]) -> Result<(), StoreError> {
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

pub(super) fn mark_published(change: &Connection, ids: &[u64], server: &str) -> Result<(), StoreError> {
    let now = now_ms();
    for id in ids {
        let sql = "UPDATE outbox SET published_at = ?2, server = ?3 WHERE id = ?1 \
            AND NOT EXISTS (SELECT 1 FROM retired_backbones r WHERE instr('-' || ?3 || '-', '-' || r.server || '-') > 0)";
        execute(change, sql, params![integer(*id), now, server])?;
    }
    Ok(())
}

pub(super) fn beat(change: &Connection, owner: &str) -> Result<(), StoreError> {
    let sql = "INSERT INTO leases (owner, beaten_at) VALUES (?1, ?2) \
        ON CONFLICT (owner) DO UPDATE SET beaten_at = excluded.beaten_at";
    execute(change, sql, params![owner, now_ms()]).map(drop)
}

pub(super) fn lease_is_live(view: &Connection, owner: &str, lease_ms: u64) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM leases WHERE owner = ?1 AND beaten_at > ?2";
    Ok(row(view, sql, params![owner, before_ms(lease_ms)], |_| Ok(()))?.is_some())
}

pub(super) fn take_unpublished(
    change: &Connection,
    owner: &str,
    lease_ms: u64,
    min_age_ms: u64,
    limit: u32,
) -> Result<Vec<PendingRow>, StoreError> {
    let sql = "SELECT o.id, o.owner, o.committed_at, o.message_ids, o.events FROM outbox o \
        WHERE o.published_at IS NULL AND o.committed_at <= ?3 AND (o.owner = ?1 \
            OR (substr(o.owner, 1, length(?5)) = ?5 AND instr(substr(o.owner, length(?5) + 1), ':') = 0) \
            OR NOT EXISTS (SELECT 1 FROM leases l WHERE l.owner = o.owner AND l.beaten_at > ?2)) \
        ORDER BY o.committed_at, o.id LIMIT ?4";
    // The node's name with its colon: what stands before the last one.
    let node = owner.rsplit_once(':').map_or_else(|| format!("{owner}:"), |(node, _)| format!("{node}:"));
    let parameters = params![owner, before_ms(lease_ms), before_ms(min_age_ms), limit, node];
    let taken = pending(change, sql, parameters)?;
    for row in &taken {
        execute(change, "UPDATE outbox SET owner = ?2 WHERE id = ?1", params![integer(row.id), owner])?;
    }
    Ok(taken)
}

pub(super) fn retire_backbone(change: &Connection, server: &str) -> Result<(), StoreError> {
    let sql = "INSERT INTO retired_backbones (server, retired_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    execute(change, sql, params![server, now_ms()]).map(drop)
}

pub(super) fn is_backbone_retired(view: &Connection, server: &str) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM retired_backbones WHERE instr('-' || ?1 || '-', '-' || server || '-') > 0 LIMIT 1";
    Ok(row(view, sql, [server], |_| Ok(()))?.is_some())
}

pub(super) fn adopt_backbone(change: &Connection, server: &str) -> Result<Option<String>, StoreError> {
    let previous: Option<String> = row(change, "SELECT server FROM backbone", [], |row| get(row, "server"))?;
    let sql = "INSERT INTO backbone (single, server) VALUES (1, ?1) ON CONFLICT (single) DO UPDATE SET server = excluded.server";
    execute(change, sql, [server])?;
    Ok(previous.filter(|previous| previous != server))
}

pub(super) fn published_elsewhere(
    view: &Connection,
    server: &str,
    after: u64,
    limit: u32,
) -> Result<Vec<PendingRow>, StoreError> {
    let sql = "SELECT o.id, o.owner, o.committed_at, o.message_ids, o.events FROM outbox o \
        WHERE o.published_at IS NOT NULL AND o.server <> ?1 AND coalesce(\
            (o.committed_at, o.id) > (SELECT a.committed_at, a.id FROM outbox a WHERE a.id = ?2), 1) \
        ORDER BY o.committed_at, o.id LIMIT ?3";
    pending(view, sql, params![server, integer(after), limit])
}

pub(super) fn prune(change: &Connection, age_ms: u64) -> Result<u64, StoreError> {
    let sql = "DELETE FROM outbox WHERE id IN (SELECT o.id FROM outbox o \
        WHERE o.published_at <= ?1 AND o.server = (SELECT b.server FROM backbone b) ORDER BY o.published_at LIMIT ?2)";
    let deleted = execute(change, sql, params![before_ms(age_ms), PRUNE_ROWS_MAX])?;
    Ok(u64::try_from(deleted).unwrap_or(u64::MAX))
}

pub(super) fn age_ms(view: &Connection) -> Result<u64, StoreError> {
    let sql = "SELECT min(committed_at) AS oldest FROM outbox WHERE published_at IS NULL";
    let oldest: Option<i64> = row(view, sql, [], |row| get(row, "oldest"))?.flatten();
    Ok(oldest.map_or(0, |oldest| u64::try_from(now_ms() - oldest).unwrap_or_default()))
}

/// Rows with their messages, as these are now.
fn pending(view: &Connection, sql: &str, parameters: impl rusqlite::Params) -> Result<Vec<PendingRow>, StoreError> {
    let json = |fault: serde_json::Error| StoreError::Failed(format!("a row of the outbox: {fault}"));
    let found = rows(view, sql, parameters, |row| {
        let ids: Vec<u64> = serde_json::from_str(&get::<String>(row, "message_ids")?).map_err(json)?;
        let pending = PendingRow {
            id: number(row, "id")?,
            owner: get(row, "owner")?,
            committed_at: time(row, "committed_at")?,
            messages: Vec::new(),
            events: serde_json::from_str(&get::<String>(row, "events")?).map_err(json)?,
        };
        Ok((pending, ids))
    })?;
    found
        .into_iter()
        .map(|(mut pending, ids)| {
            for id in ids {
                pending.messages.extend(stored(view, id)?);
            }
            Ok(pending)
        })
        .collect()
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
