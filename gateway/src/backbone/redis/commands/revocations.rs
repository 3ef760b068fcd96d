//! Revocations in Redis: a key for each user, by the clock of Redis.

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use redis::cmd;
use shared::UserId;

use super::values::read_revocation;
use crate::backbone::redis::{RedisBackbone, scripts};
use crate::backbone::{BackboneError, Revocations, revocations};

/// How long a revocation is kept: longer than any token should live.
const REVOKED_SECONDS: u32 = 30 * 24 * 3600;

/// Requests of one call that are under way at the same time.
const AT_ONCE: usize = 64;

#[async_trait]
impl Revocations for RedisBackbone {
    async fn revoke(&self, user: &UserId) -> Result<i64, BackboneError> {
        let (now_s, _): (i64, i64) = self.ask(&cmd("TIME")).await?;
        let mut set = cmd("SET");
        self.ask::<()>(set.arg(self.link.keys().revoked(user)).arg(now_s).arg("EX").arg(REVOKED_SECONDS)).await?;
        Ok(now_s)
    }

    async fn is_revoked(&self, user: &UserId, issued_at: Option<i64>) -> Result<bool, BackboneError> {
        Ok(revocations::covers(self.revoked(self.link.keys().revoked(user)).await?, issued_at))
    }

    // One key a command: in a Cluster they lie on different servers.
    async fn revoked_at(&self, users: &[UserId]) -> Result<Vec<Option<i64>>, BackboneError> {
        let asked: Vec<_> = users.iter().map(|user| self.revoked(self.link.keys().revoked(user))).collect();
        stream::iter(asked).buffered(AT_ONCE).try_collect().await
    }

    async fn restore_revocations(&self, revocations: &[(UserId, i64)]) -> Result<(), BackboneError> {
        let put: Vec<_> =
            revocations.iter().map(|(user, at_s)| self.restore(self.link.keys().revoked(user), *at_s)).collect();
        stream::iter(put).buffer_unordered(AT_ONCE).try_collect().await
    }
}

impl RedisBackbone {
    async fn revoked(&self, key: String) -> Result<Option<i64>, BackboneError> {
        read_revocation(self.link.run(cmd("GET").arg(key)).await)
    }

    async fn restore(&self, key: String, revoked_s: i64) -> Result<(), BackboneError> {
        let mut call = scripts::call(&self.link.scripts.restore_revocation, &[&key]);
        self.link.run_script(call.arg(revoked_s).arg(REVOKED_SECONDS)).await
    }
}
