//! Ids.

use std::ops::Range;

use async_trait::async_trait;
use deadpool_postgres::GenericClient;

use super::call::{on_connection, query_opt};
use super::pool::PostgresStore;
use super::rows::number;
use crate::store::{Ids, StoreError};

#[async_trait]
impl Ids for PostgresStore {
    async fn reserve_ids(&self, count: u32) -> Result<Range<u64>, StoreError> {
        on_connection!(self, Commit: client => reserve_ids(client, count))
    }
}

async fn reserve_ids(client: &impl GenericClient, count: u32) -> Result<Range<u64>, StoreError> {
    let sql = "UPDATE id_blocks SET next = next + $1 WHERE name = 'all' RETURNING next";
    let row = query_opt(client, sql, &[&i64::from(count)]).await?;
    let end = number(&row.ok_or_else(|| StoreError::Failed("id_blocks is empty".into()))?, "next")?;
    Ok(end.saturating_sub(u64::from(count))..end)
}
