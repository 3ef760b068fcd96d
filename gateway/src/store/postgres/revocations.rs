//! Revocations of users' tokens.

use async_trait::async_trait;
use shared::UserId;

use super::call::{execute, on_connection, query};
use super::pool::PostgresStore;
use super::rows::{get, parsed};
use crate::store::{Revocations, StoreError};

#[async_trait]
impl Revocations for PostgresStore {
    async fn keep_revocation(&self, user: &UserId, revoked_s: i64) -> Result<(), StoreError> {
        let sql = "INSERT INTO revocations (user_id, revoked_s) VALUES ($1, $2) ON CONFLICT (user_id) \
            DO UPDATE SET revoked_s = greatest(revocations.revoked_s, excluded.revoked_s)";
        on_connection!(self, Change: client => execute(client, sql, &[&user.as_str(), &revoked_s])).map(drop)
    }

    async fn revocations(&self, after: Option<&UserId>, limit: u32) -> Result<Vec<(UserId, i64)>, StoreError> {
        let sql = "SELECT user_id, revoked_s FROM revocations WHERE user_id > $1 ORDER BY user_id LIMIT $2";
        let (after, limit) = (after.map_or("", UserId::as_str), i64::from(limit));
        let rows = on_connection!(self, Change: client => query(client, sql, &[&after, &limit]))?;
        rows.iter().map(|row| Ok((parsed(row, "user_id", str::parse)?, get(row, "revoked_s")?))).collect()
    }

    async fn prune_revocations(&self, before_s: i64) -> Result<u64, StoreError> {
        let sql = "DELETE FROM revocations WHERE revoked_s < $1";
        on_connection!(self, Change: client => execute(client, sql, &[&before_s]))
    }
}
