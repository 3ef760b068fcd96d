//! Presence on Redis, as the node uses it: the methods of [`Presences`]. `redis/presence` changes the keys.

use async_trait::async_trait;
use shared::{Timestamp, UserId};

use crate::backbone::redis::{RedisBackbone, presence};
use crate::backbone::{BackboneError, Presence, Presences};

#[async_trait]
impl Presences for RedisBackbone {
    async fn arrived(&self, user: &UserId) -> Result<bool, BackboneError> {
        self.arrivals.ask(user.clone()).await
    }

    async fn refresh(&self, users: &[UserId]) -> Result<(), BackboneError> {
        // A user who has left meanwhile must not come back to life.
        let wanted: Vec<UserId> = users.iter().filter(|user| self.subscriptions.is_wanted(user)).cloned().collect();
        presence::refresh(&self.link, &wanted).await
    }

    async fn departed(&self, user: &UserId) -> Result<(), BackboneError> {
        let is_gone = self.departures.ask(user.clone()).await?;
        if is_gone {
            self.subscriptions.stop_lingering(user);
        }
        Ok(())
    }

    async fn take_offline(&self, limit: u32) -> Result<Vec<(UserId, Timestamp)>, BackboneError> {
        if self.link.is_unsettled() {
            return Ok(Vec::new());
        }
        presence::take_offline(&self.link, limit).await
    }

    async fn presence(&self, users: &[UserId]) -> Result<Vec<Presence>, BackboneError> {
        presence::presence(&self.link, users).await
    }
}
