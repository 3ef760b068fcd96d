//! Leases, by this machine's clock.

use async_trait::async_trait;
use rusqlite::{Connection, params};

use super::rows::{after_ms, before_ms, execute, now_ms, row};
use super::thread::SqliteStore;
use crate::store::leases::future_ms;
use crate::store::{Leases, Owner, StoreError};

#[async_trait]
impl Leases for SqliteStore {
    async fn beat(&self, owner: &Owner) -> Result<(), StoreError> {
        let owner = owner.clone();
        self.write(move |change| beat(change, &owner)).await
    }

    async fn lease_is_live(&self, owner: &str, lease_ms: u64) -> Result<bool, StoreError> {
        let owner = owner.to_owned();
        self.read(move |read| lease_is_live(read, &owner, lease_ms)).await
    }
}

fn beat(change: &Connection, owner: &str) -> Result<(), StoreError> {
    let sql = "INSERT INTO leases (owner, beaten_at) VALUES (?1, ?2) \
        ON CONFLICT (owner) DO UPDATE SET beaten_at = excluded.beaten_at";
    execute(change, sql, params![owner, now_ms()]).map(drop)
}

fn lease_is_live(view: &Connection, owner: &str, lease_ms: u64) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM leases WHERE owner = ?1 AND beaten_at > ?2 AND beaten_at <= ?3";
    Ok(row(view, sql, params![owner, before_ms(lease_ms), after_ms(future_ms())], |_| Ok(()))?.is_some())
}
