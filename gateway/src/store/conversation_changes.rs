//! Changes of whole conversations: another title, and their end. The rules that both stores share, and the trait. No
//! SQL.

use std::sync::Arc;

use async_trait::async_trait;
use shared::{Conversation, ConversationId, ConversationKind, Role, Timestamp, UserId, Visibility};

use super::membership::{Standing, may_moderate};
use super::{Members, OutboxRow, Refusal, StoreError};

/// Messages that one step empties.
pub(super) const EMPTIED_PER_STEP: u64 = 500;

/// New values; what is `None` stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConversationChange {
    /// The title; `Some(None)` removes it.
    pub title: Option<Option<String>>,
    /// Who may join.
    pub visibility: Option<Visibility>,
    /// The password's hash (PHC string); `Some(None)`: joining takes none.
    pub password_hash: Option<Option<String>>,
}

/// The outcome of a change of a conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct ConversationChanged {
    /// Whether anything changed. If not, nothing is published.
    pub changed: bool,
    /// The conversation afterwards, as a backend sees it.
    pub conversation: Conversation,
    /// The accepted members.
    pub members: Arc<Members>,
}

/// A conversation that was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationDeleted {
    /// When, by the store's clock.
    pub at: Timestamp,
    /// The `seq` of its newest message.
    pub last_seq: u64,
    /// Its members, ascending by id.
    pub members: Vec<UserId>,
    /// The users who were invited, ascending by id.
    pub invited: Vec<UserId>,
}

/// Changes of whole conversations.
#[async_trait]
pub trait ConversationChanges: Send + Sync + 'static {
    /// Changes a conversation in the name of `by` (an owner or admin, or a backend if `None`), under its lock. Its
    /// `rev` counts one up. `Forbidden` for direct ones.
    async fn change_conversation(
        &self,
        id: &ConversationId,
        by: Option<&UserId>,
        change: &ConversationChange,
        outbox: OutboxRow<ConversationChanged>,
    ) -> Result<ConversationChanged, StoreError>;

    /// Ends a conversation in the name of `by` (an owner, or a backend if `None`; direct ones only a backend): nobody
    /// is a member any more, nobody can join, and reading is `NotFound`. Its rows stay, so that the id stays taken. The
    /// first messages are emptied at once, the others by [`ConversationChanges::empty_deleted`].
    async fn delete_conversation(
        &self,
        id: &ConversationId,
        by: Option<&UserId>,
        outbox: OutboxRow<ConversationDeleted>,
    ) -> Result<ConversationDeleted, StoreError>;

    /// Empties some more messages of one deleted conversation; `false` if there was nothing to do.
    async fn empty_deleted(&self) -> Result<bool, StoreError>;
}

/// Whether the user with this row may change the conversation.
pub(super) fn may_change(kind: ConversationKind, actor: Option<Standing>, by: Option<&UserId>) -> Result<(), Refusal> {
    may_moderate(actor, by)?;
    match kind {
        ConversationKind::Direct => Err(Refusal::Forbidden),
        ConversationKind::Group | ConversationKind::Channel => Ok(()),
    }
}

/// Whether the user with this row may delete the conversation.
pub(super) fn may_delete(actor: Option<Standing>, by: Option<&UserId>) -> Result<(), Refusal> {
    // The two of a direct conversation are plain members of it.
    if may_moderate(actor, by)? == Role::Owner { Ok(()) } else { Err(Refusal::Forbidden) }
}

/// What a conversation is like before a change.
pub(super) struct Before {
    pub(super) title: Option<String>,
    pub(super) visibility: Visibility,
    pub(super) password_hash: Option<String>,
}

impl Before {
    /// The values after `change`; `None` if it changes nothing.
    pub(super) fn after(&self, change: &ConversationChange) -> Option<Self> {
        let title = change.title.clone().unwrap_or_else(|| self.title.clone());
        let password_hash = change.password_hash.clone().unwrap_or_else(|| self.password_hash.clone());
        let visibility = change.visibility.unwrap_or(self.visibility);
        let is_same = title == self.title && password_hash == self.password_hash && visibility == self.visibility;
        (!is_same).then_some(Self { title, visibility, password_hash })
    }
}
