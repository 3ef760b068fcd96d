//! Revocations of users' tokens. The backbone may lose them; the store keeps them.

use async_trait::async_trait;
use shared::UserId;

use super::StoreError;

/// Revoked users, and the second up to which their tokens are invalid.
#[async_trait]
pub trait Revocations: Send + Sync + 'static {
    /// Keeps a revocation; one that was kept for a later second stays.
    async fn keep_revocation(&self, user: &UserId, revoked_s: i64) -> Result<(), StoreError>;

    /// At most `limit` revocations of users after `after`, in the order of the users.
    async fn revocations(&self, after: Option<&UserId>, limit: u32) -> Result<Vec<(UserId, i64)>, StoreError>;

    /// Deletes the revocations from before that second, and returns their number.
    async fn prune_revocations(&self, before_s: i64) -> Result<u64, StoreError>;
}
