//! The events that a backend's webhook is owed, from their commit to their end.

use async_trait::async_trait;
use rusqlite::{Connection, Row, params};
use shared::{MessageId, Timestamp};

use super::conversations;
use super::rows::{
    before_ms, execute, get, integer, message, message_columns, message_id, now_ms, number, parsed, row, rows, time,
    unfit,
};
use super::thread::SqliteStore;
use crate::store::leases::future_ms;
use crate::store::upkeep::DELETED_PER_STEP;
use crate::store::webhook_events::{COUNTED_MAX, REPEATED_PER_CALL};
use crate::store::{DueEvent, EventsLag, OwedKind, Owner, Refusal, RepeatFrom, StoreError, Wanted, WebhookEvents};

#[async_trait]
impl WebhookEvents for SqliteStore {
    async fn take_webhook(&self, owner: &Owner, for_ms: u64) -> Result<bool, StoreError> {
        let owner = owner.clone();
        self.write(move |change| {
            let sql = "INSERT INTO webhook_lease (single, owner, until) VALUES (1, ?1, ?2) \
                ON CONFLICT (single) DO UPDATE SET owner = excluded.owner, until = excluded.until \
                    WHERE owner = excluded.owner OR until <= ?3 OR until > excluded.until + ?4";
            let now = now_ms();
            let until = now.saturating_add(integer(for_ms));
            Ok(execute(change, sql, params![&*owner, until, now, integer(future_ms())])? > 0)
        })
        .await
    }

    async fn due_events(&self, wanted: &Wanted, limit: u32) -> Result<Vec<DueEvent>, StoreError> {
        let wanted = wanted.clone();
        self.read(move |read| due(read, &wanted, limit)).await
    }

    async fn mark_delivered(&self, events: &[u64]) -> Result<(), StoreError> {
        let events = events.to_vec();
        self.write(move |change| {
            let sql = "UPDATE webhook_events SET delivered_at = ?2 WHERE id = ?1 AND delivered_at IS NULL";
            let now = now_ms();
            events.iter().try_for_each(|id| execute(change, sql, params![integer(*id), now]).map(drop))
        })
        .await
    }

    async fn bury_event(&self, event: u64, why: &str) -> Result<(), StoreError> {
        let why = why.to_owned();
        self.write(move |change| bury(change, event, &why)).await
    }

    async fn repeat_events(&self, from: RepeatFrom) -> Result<(u64, Option<u64>), StoreError> {
        self.write(move |change| repeat(change, from)).await
    }

    async fn events_lag(&self) -> Result<EventsLag, StoreError> {
        self.read(|read| lag(read)).await
    }

    async fn prune_events(&self, age_ms: u64, dead_age_ms: u64) -> Result<bool, StoreError> {
        self.write(move |change| {
            let events = "DELETE FROM webhook_events WHERE id IN (\
                SELECT id FROM webhook_events WHERE delivered_at < ?1 ORDER BY delivered_at LIMIT ?2)";
            let dead = "DELETE FROM webhook_dead WHERE id IN (\
                SELECT id FROM webhook_dead WHERE died_at < ?1 ORDER BY died_at LIMIT ?2)";
            let delivered = execute(change, events, params![before_ms(age_ms), DELETED_PER_STEP])?;
            let died = execute(change, dead, params![before_ms(dead_age_ms), DELETED_PER_STEP])?;
            Ok(delivered.max(died) >= usize::try_from(DELETED_PER_STEP).unwrap_or(usize::MAX))
        })
        .await
    }
}

fn due(read: &Connection, wanted: &Wanted, limit: u32) -> Result<Vec<DueEvent>, StoreError> {
    let sql = "SELECT id, kind, conversation_id, rev, message_id, detail, at FROM webhook_events \
        WHERE delivered_at IS NULL AND (conversation_id IN (SELECT value FROM json_each(?1))) = ?2 AND id <= ?3 \
        ORDER BY id LIMIT ?4";
    let (conversations, only, up_to) = wanted.columns();
    let conversations = serde_json::to_string(&conversations).map_err(|fault| StoreError::Failed(fault.to_string()))?;
    let mut due = rows(read, sql, params![conversations, only, up_to, limit], event)?;
    for event in &mut due {
        if let Some(id) = event.message_id {
            event.message = stored(read, id)?;
        }
        if event.kind.shows_conversation() {
            event.conversation = match conversations::view(read, &event.conversation_id, None) {
                Ok(conversation) => Some(conversation),
                Err(StoreError::Refused(Refusal::NotFound)) => None,
                Err(error) => return Err(error),
            };
        }
    }
    Ok(due)
}

fn stored(read: &Connection, id: MessageId) -> Result<Option<shared::Message>, StoreError> {
    let sql = concat!("SELECT ", message_columns!(), " FROM messages m WHERE m.id = ?1");
    row(read, sql, [integer(id.get())], message)
}

fn event(row: &Row<'_>) -> Result<DueEvent, StoreError> {
    let at: Timestamp = time(row, "at")?;
    let detail = get::<Option<String>>(row, "detail")?.map(|json| serde_json::from_str(&json)).transpose();
    let unsigned = |column| {
        get::<Option<i64>>(row, column)?.map(|number| u64::try_from(number).map_err(|_| unfit(column))).transpose()
    };
    let has_message = get::<Option<i64>>(row, "message_id")?.is_some();
    Ok(DueEvent {
        id: number(row, "id")?,
        kind: OwedKind::parse(&get::<String>(row, "kind")?).ok_or_else(|| unfit("kind"))?,
        at,
        age_ms: u64::try_from(now_ms() - at.unix_ms()).unwrap_or_default(),
        conversation_id: parsed(row, "conversation_id", str::parse)?,
        rev: unsigned("rev")?,
        message_id: if has_message { Some(message_id(row, "message_id")?) } else { None },
        message: None,
        conversation: None,
        detail: detail.map_err(|_| unfit("detail"))?.unwrap_or_default(),
    })
}

fn bury(change: &Connection, event: u64, why: &str) -> Result<(), StoreError> {
    let sql = "INSERT OR REPLACE INTO webhook_dead (id, kind, conversation_id, rev, message_id, detail, at, why, died_at) \
        SELECT id, kind, conversation_id, rev, message_id, detail, at, ?2, ?3 FROM webhook_events WHERE id = ?1";
    execute(change, sql, params![integer(event), why, now_ms()])?;
    execute(change, "DELETE FROM webhook_events WHERE id = ?1", [integer(event)]).map(drop)
}

fn repeat(change: &Connection, from: RepeatFrom) -> Result<(u64, Option<u64>), StoreError> {
    let (id, time) = match from {
        RepeatFrom::Id(id) => (integer(id), 0),
        RepeatFrom::Time(time) => (0, time.unix_ms()),
    };
    let sql = "SELECT id FROM webhook_events WHERE delivered_at IS NOT NULL AND id >= ?1 AND at >= ?2 \
        UNION ALL SELECT id FROM webhook_dead WHERE id >= ?1 AND at >= ?2 ORDER BY id LIMIT ?3";
    let chosen: Vec<u64> = rows(change, sql, params![id, time, REPEATED_PER_CALL], |row| number(row, "id"))?;
    let put_back = "INSERT OR IGNORE INTO webhook_events (id, kind, conversation_id, rev, message_id, detail, at) \
        SELECT id, kind, conversation_id, rev, message_id, detail, at FROM webhook_dead WHERE id = ?1";
    for id in &chosen {
        execute(change, "UPDATE webhook_events SET delivered_at = NULL WHERE id = ?1", [integer(*id)])?;
        execute(change, put_back, [integer(*id)])?;
        execute(change, "DELETE FROM webhook_dead WHERE id = ?1", [integer(*id)])?;
    }
    Ok((u64::try_from(chosen.len()).unwrap_or(u64::MAX), chosen.last().copied()))
}

fn lag(read: &Connection) -> Result<EventsLag, StoreError> {
    let sql = "SELECT (SELECT count(*) FROM (SELECT 1 FROM webhook_events WHERE delivered_at IS NULL LIMIT ?1)) AS owed, \
            (SELECT count(*) FROM (SELECT 1 FROM webhook_dead LIMIT ?1)) AS dead, \
            (SELECT at FROM webhook_events WHERE delivered_at IS NULL ORDER BY id LIMIT 1) AS oldest";
    let found = row(read, sql, [COUNTED_MAX], |row| {
        let oldest: Option<i64> = get(row, "oldest")?;
        let oldest_ms = oldest.and_then(|at| u64::try_from(now_ms() - at).ok()).unwrap_or_default();
        Ok(EventsLag { owed: number(row, "owed")?, oldest_ms, dead: number(row, "dead")? })
    })?;
    Ok(found.unwrap_or_default())
}
