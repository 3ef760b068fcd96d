//! Backbone servers: the one in use, and the retired ones.

use async_trait::async_trait;
use rusqlite::{Connection, params};

use super::rows::{execute, get, now_ms, row};
use super::thread::SqliteStore;
use crate::store::{BackboneServers, StoreError};

#[async_trait]
impl BackboneServers for SqliteStore {
    async fn retire_backbone(&self, server: &str) -> Result<(), StoreError> {
        let server = server.to_owned();
        self.write(move |change| retire_backbone(change, &server)).await
    }

    async fn is_backbone_retired(&self, server: &str) -> Result<bool, StoreError> {
        let server = server.to_owned();
        self.read(move |read| is_backbone_retired(read, &server)).await
    }

    async fn adopt_backbone(&self, server: &str) -> Result<Option<String>, StoreError> {
        let server = server.to_owned();
        self.write(move |change| adopt_backbone(change, &server)).await
    }
}

fn retire_backbone(change: &Connection, server: &str) -> Result<(), StoreError> {
    let sql = "INSERT INTO retired_backbones (server, retired_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    execute(change, sql, params![server, now_ms()]).map(drop)
}

fn is_backbone_retired(view: &Connection, server: &str) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM retired_backbones WHERE instr('-' || ?1 || '-', '-' || server || '-') > 0 LIMIT 1";
    Ok(row(view, sql, [server], |_| Ok(()))?.is_some())
}

fn adopt_backbone(change: &Connection, server: &str) -> Result<Option<String>, StoreError> {
    let previous: Option<String> = row(change, "SELECT server FROM backbone", [], |row| get(row, "server"))?;
    let sql = "INSERT INTO backbone (single, server) VALUES (1, ?1) ON CONFLICT (single) DO UPDATE SET server = excluded.server";
    execute(change, sql, [server])?;
    Ok(previous.filter(|previous| previous != server))
}
