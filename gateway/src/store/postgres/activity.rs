//! Statistics of channels for operators.

use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use shared::{ConversationId, UserId};

use super::call::{on_connection, query, query_opt};
use super::pool::PostgresStore;
use super::rows::{number, parsed, time_or_null};
use crate::store::activity::ACTIVITY_MESSAGES_MAX;
use crate::store::{Activity, ChannelActivity, ChannelCount, StoreError};

#[async_trait]
impl Activity for PostgresStore {
    async fn channels_of(
        &self,
        users: &[UserId],
        limit_each: u32,
    ) -> Result<Vec<(UserId, ConversationId)>, StoreError> {
        on_connection!(self, client => channels_of(client, users, limit_each))
    }

    async fn busiest(&self, users: &[(UserId, u32)], limit: u32) -> Result<Vec<ChannelCount>, StoreError> {
        on_connection!(self, client => busiest(client, users, limit))
    }

    async fn activity(&self, id: &ConversationId) -> Result<ChannelActivity, StoreError> {
        on_connection!(self, client => activity(client, id))
    }
}

async fn channels_of(
    client: &impl GenericClient,
    users: &[UserId],
    limit_each: u32,
) -> Result<Vec<(UserId, ConversationId)>, StoreError> {
    let users: Vec<&str> = users.iter().map(UserId::as_str).collect();
    let sql = "SELECT i.user_id, c.id FROM unnest($1::text[]) AS i(user_id) CROSS JOIN LATERAL (\
            SELECT c.id FROM members m JOIN conversations c ON c.id = m.conversation_id \
            WHERE m.user_id = i.user_id AND m.state = 'accepted' AND c.kind <> 'direct' ORDER BY c.id LIMIT $2\
        ) c ORDER BY i.user_id, c.id";
    query(client, sql, &[&users, &i64::from(limit_each)])
        .await?
        .iter()
        .map(|row| Ok((parsed(row, "user_id", str::parse)?, parsed(row, "id", str::parse)?)))
        .collect()
}

async fn busiest(
    client: &impl GenericClient,
    users: &[(UserId, u32)],
    limit: u32,
) -> Result<Vec<ChannelCount>, StoreError> {
    let ids: Vec<&str> = users.iter().map(|(user, _)| user.as_str()).collect();
    let connections: Vec<i64> = users.iter().map(|(_, connections)| i64::from(*connections)).collect();
    let sql = "SELECT c.id, count(*) AS users, sum(i.connections)::bigint AS connections \
        FROM unnest($1::text[], $2::bigint[]) AS i(user_id, connections) \
        JOIN members m ON m.user_id = i.user_id AND m.state = 'accepted' \
        JOIN conversations c ON c.id = m.conversation_id AND c.kind <> 'direct' \
        GROUP BY c.id ORDER BY users DESC, c.id LIMIT $3";
    query(client, sql, &[&ids, &connections, &i64::from(limit)])
        .await?
        .iter()
        .map(|row| {
            Ok(ChannelCount {
                channel: parsed(row, "id", str::parse)?,
                users: number(row, "users")?,
                connections: number(row, "connections")?,
            })
        })
        .collect()
}

async fn activity(client: &impl GenericClient, id: &ConversationId) -> Result<ChannelActivity, StoreError> {
    let sql = "SELECT max(m.created_at) AS last, \
            count(*) FILTER (WHERE m.created_at > clock_timestamp() - interval '1 minute') AS minute, \
            count(*) FILTER (WHERE m.created_at > clock_timestamp() - interval '1 hour') AS hour, \
            count(DISTINCT m.sender_id) FILTER (WHERE m.created_at > clock_timestamp() - interval '1 hour') AS senders \
        FROM (SELECT m.created_at, m.sender_id FROM messages m WHERE m.conversation_id = $1 \
            ORDER BY m.seq DESC LIMIT $2) m";
    let row = query_opt(client, sql, &[&id.as_str(), &i64::from(ACTIVITY_MESSAGES_MAX)]).await?;
    let Some(row) = row else { return Ok(ChannelActivity::default()) };
    Ok(ChannelActivity {
        last_message_at: time_or_null(&row, "last")?,
        last_minute: number(&row, "minute")?,
        last_hour: number(&row, "hour")?,
        senders_last_hour: number(&row, "senders")?,
    })
}
