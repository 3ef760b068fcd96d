//! Erasure on Redis. One key a command: in a Cluster the keys of users lie on different servers.

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use redis::cmd;
use shared::UserId;

use crate::backbone::BackboneError;
use crate::backbone::erasure::{Erasures, naming};
use crate::backbone::redis::{RedisBackbone, scripts};

/// Logs that are cut at the same time.
const AT_ONCE: usize = 16;

#[async_trait]
impl Erasures for RedisBackbone {
    async fn cut_logs(&self, users: &[UserId], erased: &UserId) -> Result<(), BackboneError> {
        let text = naming(erased);
        let cut: Vec<_> = users.iter().map(|user| self.cut(self.link.keys().log(user), &text)).collect();
        stream::iter(cut).buffer_unordered(AT_ONCE).try_collect().await
    }

    async fn forget_user(&self, user: &UserId) -> Result<(), BackboneError> {
        let keys = self.link.keys();
        for key in [keys.log(user), keys.last_seen(user), keys.online(user)] {
            self.link.run::<i64>(cmd("DEL").arg(key)).await?;
        }
        self.link.run::<i64>(cmd("ZREM").arg(keys.offline_due()).arg(user.as_str())).await.map(drop)
    }
}

impl RedisBackbone {
    async fn cut(&self, log: String, text: &str) -> Result<(), BackboneError> {
        let mut call = scripts::call(&self.link.scripts.cut, &[&log]);
        self.link.run_script::<i64>(call.arg(text)).await.map(drop)
    }
}
