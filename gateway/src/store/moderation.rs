//! Moderation: members who may not write for a time, and the messages of one user wherever they stand. The rules that
//! both stores share, and the trait. No SQL.

use std::time::Duration;

use async_trait::async_trait;
use shared::{ConversationId, ConversationKind, Message, Role, Timestamp, UserId};

use super::membership::{Standing, State, may_moderate};
use super::{Refusal, StoreError};

/// Messages that one step of a walk looks at.
pub(super) const LOOKED_AT_MAX: u32 = 500;

/// A place in a walk over the messages of one user: everything up to this message was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorPlace {
    /// The conversation.
    pub conversation: ConversationId,
    /// The message in it.
    pub seq: u64,
}

/// The messages that a walk over those of one user is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authored {
    /// Their sender.
    pub user: UserId,
    /// Only in this conversation.
    pub conversation: Option<ConversationId>,
    /// Only those from then on.
    pub since: Option<Timestamp>,
}

/// One step of a walk over the messages of one user.
#[derive(Debug, Clone, PartialEq)]
pub struct AuthoredPage {
    /// The messages that were found, without those that were deleted.
    pub messages: Vec<Message>,
    /// Where the walk goes on; `None` at its end.
    pub next: Option<AuthorPlace>,
}

/// Moderation.
#[async_trait]
pub trait Moderation: Send + Sync + 'static {
    /// Keeps a member from writing for so long (`None`: lets them write again), in the name of `by` (an owner or admin,
    /// or a backend if `None`); whether that changed anything. An admin can't mute an owner or admin. It outlasts
    /// leaving and coming back. `NotFound`: the user is no member.
    async fn mute(
        &self,
        id: &ConversationId,
        user: &UserId,
        by: Option<&UserId>,
        time: Option<Duration>,
    ) -> Result<bool, StoreError>;

    /// How long a user may still not write, in milliseconds; 0 if they may.
    async fn muted_ms(&self, id: &ConversationId, user: &UserId) -> Result<u64, StoreError>;

    /// One step of a walk over the messages of one user: it looks at a bounded number of messages of one conversation.
    /// The walk goes over the conversations in which the user is or was, in order of id.
    async fn authored(&self, of: &Authored, place: Option<&AuthorPlace>) -> Result<AuthoredPage, StoreError>;
}

/// Whether the user with the row `actor` may mute, or let write again, the one with the row `standing`.
pub(super) fn may_mute(
    kind: ConversationKind,
    actor: Option<Standing>,
    by: Option<&UserId>,
    standing: Option<Standing>,
) -> Result<(), Refusal> {
    let rights = may_moderate(actor, by)?;
    match (kind, standing) {
        // Those two block each other.
        (ConversationKind::Direct, _) => Err(Refusal::Forbidden),
        (_, Some(Standing { state: State::Accepted, role })) => {
            if role == Role::Member || rights == Role::Owner {
                Ok(())
            } else {
                Err(Refusal::Forbidden)
            }
        }
        (_, Some(_) | None) => Err(Refusal::NotFound),
    }
}
