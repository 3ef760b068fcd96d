//! Upkeep: what one node of the cluster does in small steps that nobody waits for. No SQL.

use async_trait::async_trait;
use shared::ConversationId;

use super::{Owner, StoreError};

/// Rows that one step deletes.
pub(super) const DELETED_PER_STEP: u32 = 500;
/// Conversations that one step looks at.
pub(super) const LOOKED_AT_PER_STEP: u32 = 500;

/// One step of a walk over all conversations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpiryStep {
    /// The messages that it deleted.
    pub deleted: u64,
    /// Where the next step begins: behind this conversation.
    pub after: Option<ConversationId>,
    /// Whether it was the walk's last.
    pub is_last: bool,
}

/// The end of what is kept only for a time.
#[async_trait]
pub trait Upkeep: Send + Sync + 'static {
    /// Whether `owner` does the upkeep for the next `for_ms`: the first who asks does, until they ask no more.
    async fn take_upkeep(&self, owner: &Owner, for_ms: u64) -> Result<bool, StoreError>;

    /// One step of a walk over all conversations in order of id: of those after `after` it deletes some messages that
    /// are older than `age_ms`, the oldest first. Rows that somebody else holds are left for another walk.
    async fn expire_messages(&self, age_ms: u64, after: Option<&ConversationId>) -> Result<ExpiryStep, StoreError>;

    /// Deletes some lines of the audit trail that are older than `age_ms`; whether there may be more.
    async fn expire_audit(&self, age_ms: u64) -> Result<bool, StoreError>;
}
