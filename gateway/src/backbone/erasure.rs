//! Erasure: what the backbone keeps of a user, and what other users' logs say of them.

use async_trait::async_trait;
use shared::UserId;

use super::BackboneError;

/// Erasure. Every call may be repeated after a lost reply.
#[async_trait]
pub trait Erasures: Send + Sync + 'static {
    /// Removes the entries of these users' logs up to the last one that names `erased`. A client that resumes from
    /// before gets `resync {reason: "trimmed"}`; what comes later goes on as before. If the newest entry names them,
    /// the whole log goes, and the next append opens another.
    async fn cut_logs(&self, users: &[UserId], erased: &UserId) -> Result<(), BackboneError>;

    /// Forgets a user's log and presence.
    async fn forget_user(&self, user: &UserId) -> Result<(), BackboneError>;
}

/// How an event names a user: an id needs no escapes, and is a JSON string of its own.
pub(super) fn naming(user: &UserId) -> String {
    format!("\"{user}\"")
}
