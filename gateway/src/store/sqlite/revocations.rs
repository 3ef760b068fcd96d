//! Revocations of users' tokens.

use async_trait::async_trait;
use rusqlite::params;
use shared::UserId;

use super::rows::{execute, get, parsed, rows};
use super::thread::SqliteStore;
use crate::store::{Revocations, StoreError};

#[async_trait]
impl Revocations for SqliteStore {
    async fn keep_revocation(&self, user: &UserId, revoked_s: i64) -> Result<(), StoreError> {
        let user = user.clone();
        self.write(move |change| {
            let sql = "INSERT INTO revocations (user_id, revoked_s) VALUES (?1, ?2) ON CONFLICT (user_id) \
                DO UPDATE SET revoked_s = max(revoked_s, excluded.revoked_s)";
            execute(change, sql, params![user.as_str(), revoked_s]).map(drop)
        })
        .await
    }

    async fn revocations(&self, after: Option<&UserId>, limit: u32) -> Result<Vec<(UserId, i64)>, StoreError> {
        let after = after.map(|user| user.as_str().to_owned()).unwrap_or_default();
        self.read(move |read| {
            let sql = "SELECT user_id, revoked_s FROM revocations WHERE user_id > ?1 ORDER BY user_id LIMIT ?2";
            let row = |row: &rusqlite::Row<'_>| Ok((parsed(row, "user_id", str::parse)?, get(row, "revoked_s")?));
            rows(read, sql, params![after, limit], row)
        })
        .await
    }

    async fn prune_revocations(&self, before_s: i64) -> Result<u64, StoreError> {
        self.write(move |change| {
            let gone = execute(change, "DELETE FROM revocations WHERE revoked_s < ?1", [before_s])?;
            Ok(u64::try_from(gone).unwrap_or_default())
        })
        .await
    }
}
