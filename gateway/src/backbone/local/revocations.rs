//! Revocations in this process.

use async_trait::async_trait;
use shared::{Timestamp, UserId};

use super::LocalBackbone;
use crate::backbone::{BackboneError, Revocations, revocations};

#[async_trait]
impl Revocations for LocalBackbone {
    async fn revoke(&self, user: &UserId) -> Result<i64, BackboneError> {
        let now_s = Timestamp::now().unix_seconds();
        self.shared.state.lock().revoked_s.insert(user.clone(), now_s);
        Ok(now_s)
    }

    async fn is_revoked(&self, user: &UserId, issued_at: Option<i64>) -> Result<bool, BackboneError> {
        let revoked_s = self.shared.state.lock().revoked_s.get(user).copied();
        Ok(revocations::covers(revoked_s, issued_at))
    }

    async fn revoked_at(&self, users: &[UserId]) -> Result<Vec<Option<i64>>, BackboneError> {
        let state = self.shared.state.lock();
        Ok(users.iter().map(|user| state.revoked_s.get(user).copied()).collect())
    }

    async fn restore_revocations(&self, revocations: &[(UserId, i64)]) -> Result<(), BackboneError> {
        let mut state = self.shared.state.lock();
        for (user, revoked_s) in revocations {
            let known = state.revoked_s.entry(user.clone()).or_insert(*revoked_s);
            *known = (*known).max(*revoked_s);
        }
        Ok(())
    }
}
