//! Ids.

use std::ops::Range;

use async_trait::async_trait;
use rusqlite::Connection;

use super::rows::{number, row};
use super::thread::SqliteStore;
use crate::store::{Ids, StoreError};

#[async_trait]
impl Ids for SqliteStore {
    async fn reserve_ids(&self, count: u32) -> Result<Range<u64>, StoreError> {
        self.write(move |change| reserve_ids(change, count)).await
    }
}

fn reserve_ids(change: &Connection, count: u32) -> Result<Range<u64>, StoreError> {
    let sql = "UPDATE id_blocks SET next = next + ?1 WHERE name = 'all' RETURNING next";
    let end = row(change, sql, [count], |row| number(row, "next"))?
        .ok_or_else(|| StoreError::Failed("id_blocks is empty".into()))?;
    Ok(end.saturating_sub(u64::from(count))..end)
}
