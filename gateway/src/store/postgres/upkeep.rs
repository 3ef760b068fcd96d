//! Upkeep: one node at a time, in small steps.

use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use shared::ConversationId;

use super::call::{execute, on_connection, query};
use super::pool::PostgresStore;
use super::rows::{bigint, get, parsed};
use crate::store::upkeep::{DELETED_PER_STEP, ExpiryStep, LOOKED_AT_PER_STEP, Upkeep};
use crate::store::{Owner, StoreError};

#[async_trait]
impl Upkeep for PostgresStore {
    async fn take_upkeep(&self, owner: &Owner, for_ms: u64) -> Result<bool, StoreError> {
        on_connection!(self, client => take_upkeep(client, owner, for_ms))
    }

    async fn expire_messages(&self, age_ms: u64, after: Option<&ConversationId>) -> Result<ExpiryStep, StoreError> {
        on_connection!(self, client => expire_messages(client, age_ms, after))
    }

    async fn expire_audit(&self, age_ms: u64) -> Result<bool, StoreError> {
        on_connection!(self, client => expire_audit(client, age_ms))
    }
}

async fn take_upkeep(client: &impl GenericClient, owner: &str, for_ms: u64) -> Result<bool, StoreError> {
    let sql = "INSERT INTO upkeep (single, owner, until) \
        VALUES (true, $1, clock_timestamp() + $2::bigint * interval '1 millisecond') \
        ON CONFLICT (single) DO UPDATE SET owner = excluded.owner, until = excluded.until \
            WHERE upkeep.owner = excluded.owner OR upkeep.until < clock_timestamp()";
    Ok(execute(client, sql, &[&owner, &bigint(for_ms)]).await? > 0)
}

/// A conversation's messages are as old as their order says, so that a look at the first of them tells whether there is
/// anything to do.
async fn expire_messages(
    client: &impl GenericClient,
    age_ms: u64,
    after: Option<&ConversationId>,
) -> Result<ExpiryStep, StoreError> {
    let sql = "SELECT c.id, coalesce(f.created_at < clock_timestamp() - $3::bigint * interval '1 millisecond', false) \
            AS is_due \
        FROM (SELECT c.id FROM conversations c WHERE c.id > $1 ORDER BY c.id LIMIT $2) c \
        LEFT JOIN LATERAL (SELECT m.created_at FROM messages m WHERE m.conversation_id = c.id \
            ORDER BY m.seq LIMIT 1) f ON true ORDER BY c.id";
    // No id is empty: all come behind that.
    let start = after.map_or("", ConversationId::as_str);
    let looked_at = i64::from(LOOKED_AT_PER_STEP);
    let page = query(client, sql, &[&start, &looked_at, &bigint(age_ms)]).await?;
    let mut before = after.cloned();
    for row in &page {
        let id: ConversationId = parsed(row, "id", str::parse)?;
        if !get::<bool>(row, "is_due")? {
            before = Some(id);
            continue;
        }
        let sql = "DELETE FROM messages WHERE id = ANY (ARRAY(\
            SELECT m.id FROM messages m WHERE m.conversation_id = $1 \
                AND m.created_at < clock_timestamp() - $2::bigint * interval '1 millisecond' \
            ORDER BY m.seq LIMIT $3 FOR UPDATE SKIP LOCKED))";
        let deleted = execute(client, sql, &[&id.as_str(), &bigint(age_ms), &i64::from(DELETED_PER_STEP)]).await?;
        // After a full step the next one begins with the same conversation.
        let after = if deleted >= u64::from(DELETED_PER_STEP) { before } else { Some(id) };
        return Ok(ExpiryStep { deleted, after, is_last: false });
    }
    let is_last = page.len() < usize::try_from(LOOKED_AT_PER_STEP).unwrap_or(usize::MAX);
    Ok(ExpiryStep { deleted: 0, after: before, is_last })
}

async fn expire_audit(client: &impl GenericClient, age_ms: u64) -> Result<bool, StoreError> {
    let sql = "DELETE FROM audit WHERE id = ANY (ARRAY(\
        SELECT a.id FROM audit a WHERE a.at < statement_timestamp() - $1::bigint * interval '1 millisecond' \
        ORDER BY a.at LIMIT $2 FOR UPDATE SKIP LOCKED))";
    let deleted = execute(client, sql, &[&bigint(age_ms), &i64::from(DELETED_PER_STEP)]).await?;
    Ok(deleted >= u64::from(DELETED_PER_STEP))
}
