//! Presence in this process: the methods of [`Presences`] on the table in `online`.

use async_trait::async_trait;
use shared::{Timestamp, UserId};

use super::LocalBackbone;
use super::time::now_ms;
use crate::backbone::{BackboneError, Presence, Presences};

#[async_trait]
impl Presences for LocalBackbone {
    async fn arrived(&self, user: &UserId) -> Result<bool, BackboneError> {
        Ok(self.shared.state.lock().online.arrived(user, now_ms(), &self.shared.settings))
    }

    async fn refresh(&self, users: &[UserId]) -> Result<(), BackboneError> {
        let mut state = self.shared.state.lock();
        let now_ms = now_ms();
        for user in users {
            // A user who has left meanwhile must not come back to life.
            if state.is_wanted(user) {
                state.refresh(user, now_ms);
            }
        }
        Ok(())
    }

    async fn departed(&self, user: &UserId) -> Result<(), BackboneError> {
        let mut state = self.shared.state.lock();
        if !state.is_wanted(user) {
            state.online.departed(user, now_ms(), &self.shared.settings);
            state.stop_lingering(user);
        }
        Ok(())
    }

    async fn take_offline(&self, limit: u32) -> Result<Vec<(UserId, Timestamp)>, BackboneError> {
        Ok(self.shared.state.lock().online.take_offline(limit, now_ms(), &self.shared.settings))
    }

    async fn presence(&self, users: &[UserId]) -> Result<Vec<Presence>, BackboneError> {
        let state = self.shared.state.lock();
        let now_ms = now_ms();
        Ok(users.iter().map(|user| state.online.presence(user, now_ms)).collect())
    }
}
