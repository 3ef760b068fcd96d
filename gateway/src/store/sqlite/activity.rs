//! Statistics of channels for operators.

use async_trait::async_trait;
use rusqlite::{Connection, params};
use shared::{ConversationId, Timestamp, UserId};

use super::rows::{before_ms, get, number, parsed, row, rows};
use super::thread::SqliteStore;
use crate::store::activity::ACTIVITY_MESSAGES_MAX;
use crate::store::{Activity, ChannelActivity, ChannelCount, StoreError};

#[async_trait]
impl Activity for SqliteStore {
    async fn channels_of(
        &self,
        users: &[UserId],
        limit_each: u32,
    ) -> Result<Vec<(UserId, ConversationId)>, StoreError> {
        let users = users.to_vec();
        self.read(move |read| channels_of(read, &users, limit_each)).await
    }

    async fn busiest(&self, users: &[(UserId, u32)], limit: u32) -> Result<Vec<ChannelCount>, StoreError> {
        let users = serde_json::to_string(users).map_err(|fault| StoreError::Failed(fault.to_string()))?;
        self.read(move |read| busiest(read, &users, limit)).await
    }

    async fn activity(&self, id: &ConversationId) -> Result<ChannelActivity, StoreError> {
        let id = id.clone();
        self.read(move |read| activity(read, &id)).await
    }
}

fn channels_of(
    read: &Connection,
    users: &[UserId],
    limit_each: u32,
) -> Result<Vec<(UserId, ConversationId)>, StoreError> {
    let sql = "SELECT c.id FROM members m JOIN conversations c ON c.id = m.conversation_id \
        WHERE m.user_id = ?1 AND m.state = 'accepted' AND c.kind <> 'direct' ORDER BY c.id LIMIT ?2";
    let mut found = Vec::new();
    for user in users {
        let channels: Vec<ConversationId> =
            rows(read, sql, params![user.as_str(), limit_each], |row| parsed(row, "id", str::parse))?;
        found.extend(channels.into_iter().map(|channel| (user.clone(), channel)));
    }
    Ok(found)
}

/// `users` is JSON: pairs of id and number.
fn busiest(read: &Connection, users: &str, limit: u32) -> Result<Vec<ChannelCount>, StoreError> {
    let sql = "SELECT c.id AS id, count(*) AS users, sum(json_extract(i.value, '$[1]')) AS connections \
        FROM json_each(?1) i \
        JOIN members m ON m.user_id = json_extract(i.value, '$[0]') AND m.state = 'accepted' \
        JOIN conversations c ON c.id = m.conversation_id AND c.kind <> 'direct' \
        GROUP BY c.id ORDER BY users DESC, c.id LIMIT ?2";
    rows(read, sql, params![users, limit], |row| {
        Ok(ChannelCount {
            channel: parsed(row, "id", str::parse)?,
            users: number(row, "users")?,
            connections: number(row, "connections")?,
        })
    })
}

fn activity(read: &Connection, id: &ConversationId) -> Result<ChannelActivity, StoreError> {
    let sql = "SELECT max(created_at) AS last, coalesce(sum(created_at > ?3), 0) AS minute, \
            coalesce(sum(created_at > ?4), 0) AS hour, \
            count(DISTINCT CASE WHEN created_at > ?4 THEN sender_id END) AS senders \
        FROM (SELECT created_at, sender_id FROM messages WHERE conversation_id = ?1 ORDER BY seq DESC LIMIT ?2)";
    let ages = (before_ms(60_000), before_ms(3_600_000));
    let found = row(read, sql, params![id.as_str(), ACTIVITY_MESSAGES_MAX, ages.0, ages.1], |row| {
        Ok(ChannelActivity {
            last_message_at: get::<Option<i64>>(row, "last")?.map(Timestamp::from_unix_ms),
            last_minute: number(row, "minute")?,
            last_hour: number(row, "hour")?,
            senders_last_hour: number(row, "senders")?,
        })
    })?;
    Ok(found.unwrap_or_default())
}
