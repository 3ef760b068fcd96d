//! Revocations: the time up to which a user's tokens are invalid (`chat:revoked:<user>`).
//!
//! The store has them for good; the backbone has them where each node can look one up for each token.

use async_trait::async_trait;
use shared::UserId;

use super::BackboneError;

/// The users' revocations. Times are unix seconds.
///
/// Every call may be repeated after a lost reply.
#[async_trait]
pub trait Revocations: Send + Sync + 'static {
    /// Makes the tokens invalid that the user has now, by the backbone's clock; returns its time. A token that is issued
    /// within the same second is invalid as well. The revocation is kept for 30 days.
    ///
    /// After a lost reply the revocation may hold. Calling again replaces it by a later one.
    async fn revoke(&self, user: &UserId) -> Result<i64, BackboneError>;

    /// Whether a token of the user that was issued at `issued_at` is revoked. A token without an issue time counts as old:
    /// it is revoked if anything is.
    async fn is_revoked(&self, user: &UserId, issued_at: Option<i64>) -> Result<bool, BackboneError>;

    /// The time of each user's revocation, in the same order; `None` for users without one.
    async fn revoked_at(&self, users: &[UserId]) -> Result<Vec<Option<i64>>, BackboneError>;

    /// Puts revocations back that this backbone may have lost. A later one that it has stays. After an error some of them
    /// may be back, and others not.
    async fn restore_revocations(&self, revocations: &[(UserId, i64)]) -> Result<(), BackboneError>;
}

/// Whether a user's revocation, if there is one, covers a token with this issue time. Both are unix seconds.
pub(super) fn covers(revoked_s: Option<i64>, issued_s: Option<i64>) -> bool {
    revoked_s.is_some_and(|revoked_s| issued_s.is_none_or(|issued_s| issued_s <= revoked_s))
}
