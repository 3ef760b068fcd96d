//! Backbone servers: the one in use, and the retired ones.

use async_trait::async_trait;
use deadpool_postgres::GenericClient;

use super::call::{execute, on_connection, query_opt};
use super::pool::PostgresStore;
use super::rows::get;
use crate::store::{BackboneServers, StoreError};

#[async_trait]
impl BackboneServers for PostgresStore {
    async fn retire_backbone(&self, server: &str) -> Result<(), StoreError> {
        on_connection!(self, Control: client => retire_backbone(client, server))
    }

    async fn is_backbone_retired(&self, server: &str) -> Result<bool, StoreError> {
        on_connection!(self, Control: client => is_backbone_retired(client, server))
    }

    async fn adopt_backbone(&self, server: &str) -> Result<Option<String>, StoreError> {
        on_connection!(self, Control: client => adopt_backbone(client, server))
    }
}

async fn retire_backbone(client: &impl GenericClient, server: &str) -> Result<(), StoreError> {
    let sql = "INSERT INTO retired_backbones (server) VALUES ($1) ON CONFLICT DO NOTHING";
    execute(client, sql, &[&server]).await.map(drop)
}

async fn is_backbone_retired(client: &impl GenericClient, server: &str) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM retired_backbones WHERE server = ANY (string_to_array($1, '-')) LIMIT 1";
    Ok(query_opt(client, sql, &[&server]).await?.is_some())
}

/// Makes `server` the backbone server, in one statement that two nodes can race.
async fn adopt_backbone(client: &impl GenericClient, server: &str) -> Result<Option<String>, StoreError> {
    execute(client, "INSERT INTO backbone (server) VALUES ($1) ON CONFLICT DO NOTHING", &[&server]).await?;
    let sql = "UPDATE backbone b SET server = $1 FROM (SELECT server FROM backbone FOR UPDATE) old \
        WHERE b.server <> $1 RETURNING old.server AS previous";
    query_opt(client, sql, &[&server]).await?.map(|row| get(&row, "previous")).transpose()
}
