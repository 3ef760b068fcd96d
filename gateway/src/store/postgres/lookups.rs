//! Single values by their key.

use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use shared::{ConversationId, MessageId, UserId};
use tokio_postgres::Row;

use super::call::{on_connection, query, query_opt};
use super::pool::PostgresStore;
use super::rows::{bigint, get, parsed, unfit};
use crate::store::lookups::outsider;
use crate::store::{Lookups, Names, Refusal, StoreError};

#[async_trait]
impl Lookups for PostgresStore {
    async fn username(&self, user: &UserId) -> Result<Option<String>, StoreError> {
        on_connection!(self, client => username(client, user))
    }

    async fn usernames(&self, users: &[UserId]) -> Result<Vec<(UserId, String)>, StoreError> {
        on_connection!(self, client => usernames(client, users))
    }

    async fn names_of(&self, users: &[UserId]) -> Result<Vec<(UserId, Names)>, StoreError> {
        on_connection!(self, client => names_of(client, users))
    }

    async fn known_users(&self, users: &[UserId]) -> Result<Vec<UserId>, StoreError> {
        on_connection!(self, client => known_users(client, users))
    }

    async fn conversation_of(&self, message: MessageId) -> Result<Option<ConversationId>, StoreError> {
        on_connection!(self, client => conversation_of(client, message))
    }

    async fn outside(&self, conversation: &ConversationId, user: Option<&UserId>) -> Result<Refusal, StoreError> {
        on_connection!(self, client => outside(client, conversation, user))
    }
}

async fn usernames(client: &impl GenericClient, users: &[UserId]) -> Result<Vec<(UserId, String)>, StoreError> {
    let sql = "SELECT id, name FROM users WHERE id = ANY ($1) AND name IS NOT NULL";
    let users: Vec<&str> = users.iter().map(UserId::as_str).collect();
    let named = |row: &Row| {
        let user = get::<&str>(row, "id")?.parse().map_err(|_| unfit("id"))?;
        Ok((user, get(row, "name")?))
    };
    query(client, sql, &[&users]).await?.iter().map(named).collect()
}

async fn names_of(client: &impl GenericClient, users: &[UserId]) -> Result<Vec<(UserId, Names)>, StoreError> {
    let sql = "SELECT i.id, n.username, u.name FROM unnest($1::text[]) AS i(id) \
        LEFT JOIN users u ON u.id = i.id LEFT JOIN usernames n ON n.user_id = i.id \
        WHERE u.name IS NOT NULL OR n.username IS NOT NULL";
    let users: Vec<&str> = users.iter().map(UserId::as_str).collect();
    let named = |row: &Row| {
        let names = Names { username: get(row, "username")?, shown: get(row, "name")? };
        Ok((parsed(row, "id", str::parse)?, names))
    };
    query(client, sql, &[&users]).await?.iter().map(named).collect()
}

async fn known_users(client: &impl GenericClient, users: &[UserId]) -> Result<Vec<UserId>, StoreError> {
    let sql = "SELECT id FROM users WHERE id = ANY ($1) UNION SELECT user_id FROM usernames WHERE user_id = ANY ($1)";
    let users: Vec<&str> = users.iter().map(UserId::as_str).collect();
    query(client, sql, &[&users]).await?.iter().map(|row| parsed(row, "id", str::parse)).collect()
}

async fn username(client: &impl GenericClient, user: &UserId) -> Result<Option<String>, StoreError> {
    let sql = "SELECT name FROM users WHERE id = $1";
    let row = query_opt(client, sql, &[&user.as_str()]).await?;
    Ok(row.map(|row| get(&row, "name")).transpose()?.flatten())
}

async fn conversation_of(
    client: &impl GenericClient,
    message: MessageId,
) -> Result<Option<ConversationId>, StoreError> {
    let sql = "SELECT conversation_id FROM messages WHERE id = $1";
    let row = query_opt(client, sql, &[&bigint(message.get())]).await?;
    row.map(|row| parsed(&row, "conversation_id", str::parse)).transpose()
}

async fn outside(
    client: &impl GenericClient,
    conversation: &ConversationId,
    user: Option<&UserId>,
) -> Result<Refusal, StoreError> {
    let sql = "SELECT coalesce(m.state = 'banned', false) AS is_banned FROM conversations c \
        LEFT JOIN members m ON m.conversation_id = c.id AND m.user_id = $2 WHERE c.id = $1 AND c.deleted_at IS NULL";
    let row = query_opt(client, sql, &[&conversation.as_str(), &user.map(UserId::as_str)]).await?;
    Ok(outsider(row.map(|row| get(&row, "is_banned")).transpose()?))
}
