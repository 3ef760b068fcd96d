//! Messages that the hook gave another content.

use async_trait::async_trait;
use shared::{TempId, UserId};

use super::rows::{execute, get, message, message_columns, row};
use super::thread::SqliteStore;
use crate::store::{EarlierSend, Replacements, StoreError};

#[async_trait]
impl Replacements for SqliteStore {
    async fn note_replaced(&self, sender: &UserId, temp_id: &TempId) -> Result<(), StoreError> {
        let (sender, temp_id) = (sender.clone(), temp_id.clone());
        let sql = "INSERT INTO replaced_sends (sender_id, temp_id) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
        self.write(move |change| execute(change, sql, [sender.as_str(), temp_id.as_str()]).map(drop)).await
    }

    async fn sent_earlier(&self, sender: &UserId, temp_id: &TempId) -> Result<Option<EarlierSend>, StoreError> {
        const SQL: &str = concat!(
            "SELECT ",
            message_columns!(),
            ", r.sender_id IS NOT NULL AS replaced FROM messages m \
                LEFT JOIN replaced_sends r ON r.sender_id = m.sender_id AND r.temp_id = m.temp_id \
                WHERE m.sender_id = ?1 AND m.temp_id = ?2"
        );
        let (sender, temp_id) = (sender.clone(), temp_id.clone());
        let earlier =
            |row: &rusqlite::Row<'_>| Ok(EarlierSend { message: message(row)?, replaced: get(row, "replaced")? });
        self.read(move |read| row(read, SQL, [sender.as_str(), temp_id.as_str()], earlier)).await
    }
}
