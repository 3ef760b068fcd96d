//! Messages that the hook gave another content.

use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use shared::{TempId, UserId};

use super::call::{execute, on_connection, query_opt};
use super::pool::PostgresStore;
use super::rows::{get, message, message_columns};
use crate::store::{EarlierSend, Replacements, StoreError};

#[async_trait]
impl Replacements for PostgresStore {
    async fn note_replaced(&self, sender: &UserId, temp_id: &TempId) -> Result<(), StoreError> {
        on_connection!(self, client => note(client, sender, temp_id))
    }

    async fn sent_earlier(&self, sender: &UserId, temp_id: &TempId) -> Result<Option<EarlierSend>, StoreError> {
        on_connection!(self, client => earlier(client, sender, temp_id))
    }
}

async fn note(client: &impl GenericClient, sender: &UserId, temp_id: &TempId) -> Result<(), StoreError> {
    let sql = "INSERT INTO replaced_sends (sender_id, temp_id) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    execute(client, sql, &[&sender.as_str(), &temp_id.as_str()]).await.map(drop)
}

async fn earlier(
    client: &impl GenericClient,
    sender: &UserId,
    temp_id: &TempId,
) -> Result<Option<EarlierSend>, StoreError> {
    const SQL: &str = concat!(
        "SELECT ",
        message_columns!(),
        ", r.sender_id IS NOT NULL AS replaced FROM messages m \
            LEFT JOIN replaced_sends r ON r.sender_id = m.sender_id AND r.temp_id = m.temp_id \
            WHERE m.sender_id = $1 AND m.temp_id = $2"
    );
    let row = query_opt(client, SQL, &[&sender.as_str(), &temp_id.as_str()]).await?;
    row.map(|row| Ok(EarlierSend { message: message(&row)?, replaced: get(&row, "replaced")? })).transpose()
}
