//! Revoking users: in the backbone, where every node looks them up, and in the store, because the backbone may lose
//! them.

use shared::{ProtocolError, Timestamp, UserId};

use super::Chat;
use crate::backbone::{BackboneError, Control};
use crate::store::StoreError;

/// Revocations that are read in one call.
const PAGE: u32 = 500;
/// How long a revocation is kept, in seconds: longer than any token should live. The backbone keeps it as long.
const KEPT_S: i64 = 30 * 24 * 3600;

/// Revocations could not be put back.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Nobody knows them.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nobody takes them.
    #[error(transparent)]
    Backbone(#[from] BackboneError),
}

impl Chat {
    /// Revokes the user's tokens of now and before, and closes the user's sockets on every node. An error for the store
    /// means: done, but it may be forgotten; do it again.
    pub async fn revoke(&self, user: &UserId) -> Result<(), ProtocolError> {
        let revoked_s = self.backbone.revoke(user).await?;
        let order = Control::Disconnect { user_id: user.clone(), revoked: true, revoked_s: Some(revoked_s) };
        self.backbone.control(&order).await?;
        Ok(self.store.keep_revocation(user, revoked_s).await?)
    }

    /// Tells the backbone of every revocation that the store knows: how many.
    pub async fn restore_revocations(&self) -> Result<usize, RestoreError> {
        let mut after: Option<UserId> = None;
        let mut restored = 0;
        loop {
            let page = self.store.revocations(after.as_ref(), PAGE).await?;
            self.backbone.restore_revocations(&page).await?;
            restored += page.len();
            match page.last() {
                Some((user, _)) if page.len() >= PAGE as usize => after = Some(user.clone()),
                _ => return Ok(restored),
            }
        }
    }

    /// Forgets revocations that are older than any token.
    pub async fn prune_revocations(&self) -> Result<u64, StoreError> {
        self.store.prune_revocations(Timestamp::now().unix_seconds() - KEPT_S).await
    }
}
