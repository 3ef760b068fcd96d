//! The audit trail.

use async_trait::async_trait;
use rusqlite::params;

use super::rows::execute;
use super::thread::SqliteStore;
use crate::store::{Audit, AuditEntry, StoreError};

#[async_trait]
impl Audit for SqliteStore {
    async fn write_audit(&self, entries: &[AuditEntry]) -> Result<(), StoreError> {
        let entries = entries.to_vec();
        self.write(move |change| entries.iter().try_for_each(|entry| insert(change, entry))).await
    }
}

fn insert(change: &rusqlite::Connection, entry: &AuditEntry) -> Result<(), StoreError> {
    let sql = "INSERT INTO audit (at, kind, user_id, conversation_id, connection_id, detail) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let conversation = entry.conversation.as_ref().map(|id| id.as_str());
    let (at, kind, detail) = (entry.at.unix_ms(), entry.act.kind(), entry.act.detail());
    execute(
        change,
        sql,
        params![at, kind, entry.user.as_ref().map(|id| id.as_str()), conversation, entry.connection, detail],
    )
    .map(drop)
}
