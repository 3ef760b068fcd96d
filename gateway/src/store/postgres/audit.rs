//! The audit trail: one statement a batch.

use async_trait::async_trait;
use deadpool_postgres::GenericClient;

use super::call::{execute, on_connection};
use super::pool::PostgresStore;
use super::rows::system_time;
use crate::store::{Audit, AuditEntry, StoreError};

#[async_trait]
impl Audit for PostgresStore {
    async fn write_audit(&self, entries: &[AuditEntry]) -> Result<(), StoreError> {
        on_connection!(self, Change: client => insert(client, entries))
    }
}

async fn insert(client: &impl GenericClient, entries: &[AuditEntry]) -> Result<(), StoreError> {
    let times: Vec<_> = entries.iter().map(|entry| system_time(entry.at)).collect();
    let kinds: Vec<&str> = entries.iter().map(|entry| entry.act.kind()).collect();
    let users: Vec<Option<&str>> = entries.iter().map(|entry| entry.user.as_ref().map(|id| id.as_str())).collect();
    let conversations: Vec<Option<&str>> =
        entries.iter().map(|entry| entry.conversation.as_ref().map(|id| id.as_str())).collect();
    let connections: Vec<Option<&str>> = entries.iter().map(|entry| entry.connection.as_deref()).collect();
    let details: Vec<Option<String>> = entries.iter().map(|entry| entry.act.detail()).collect();
    let sql = "INSERT INTO audit (at, kind, user_id, conversation_id, connection_id, detail) \
        SELECT i.at, i.kind, i.u, i.c, i.connection, i.detail \
        FROM unnest($1::timestamptz[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[]) \
            WITH ORDINALITY AS i(at, kind, u, c, connection, detail, place) ORDER BY i.place";
    execute(client, sql, &[&times, &kinds, &users, &conversations, &connections, &details]).await.map(drop)
}
