//! Session cookies, tickets and revocations in Redis.

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use redis::cmd;
use shared::UserId;
use shared::redis_keys::{revoked_key, session_key, ticket_key};

use crate::backbone::redis::{REVOKED_SECONDS, RedisBackbone, scripts};
use crate::backbone::{BackboneError, Logins, SessionId, Ticket};

/// Requests of one call that are under way at the same time.
const AT_ONCE: usize = 64;

#[async_trait]
impl Logins for RedisBackbone {
    async fn session(&self, id: &SessionId) -> Result<Option<String>, BackboneError> {
        self.link.run(cmd("GET").arg(session_key(id.as_str()))).await
    }

    async fn set_session(&self, id: &SessionId, value: Option<&str>) -> Result<(), BackboneError> {
        let key = session_key(id.as_str());
        match value {
            Some(value) => self.link.run(cmd("SET").arg(key).arg(value)).await,
            None => self.link.run(cmd("DEL").arg(key)).await,
        }
    }

    async fn put_ticket(&self, ticket: &Ticket, value: &str, seconds: u32) -> Result<(), BackboneError> {
        self.link.run(cmd("SET").arg(ticket_key(ticket.as_str())).arg(value).arg("EX").arg(seconds)).await
    }

    async fn take_ticket(&self, ticket: &Ticket) -> Result<Option<String>, BackboneError> {
        self.link.run(cmd("GETDEL").arg(ticket_key(ticket.as_str()))).await
    }

    // One key a command: in Cluster they lie on different servers.
    async fn revoked_at(&self, users: &[UserId]) -> Result<Vec<Option<i64>>, BackboneError> {
        let asked: Vec<_> = users.iter().map(|user| self.revoked(revoked_key(user))).collect();
        stream::iter(asked).buffered(AT_ONCE).try_collect().await
    }

    async fn restore_revocations(&self, revocations: &[(UserId, i64)]) -> Result<(), BackboneError> {
        let put: Vec<_> = revocations.iter().map(|(user, at_s)| self.restore(revoked_key(user), *at_s)).collect();
        stream::iter(put).buffer_unordered(AT_ONCE).try_collect().await
    }
}

impl RedisBackbone {
    async fn revoked(&self, key: String) -> Result<Option<i64>, BackboneError> {
        self.link.run(cmd("GET").arg(key)).await
    }

    async fn restore(&self, key: String, revoked_s: i64) -> Result<(), BackboneError> {
        let mut call = scripts::call(&self.link.scripts.restore_revocation, &[&key]);
        self.link.run_script(call.arg(revoked_s).arg(REVOKED_SECONDS)).await
    }
}
