//! Erasure of a user: what the store keeps of them beside their messages, and how far it has come. No SQL.

use async_trait::async_trait;
use shared::{ConversationId, UserId};

use super::{AuthorPlace, StoreError};

/// Users that one page of a conversation's members of all times holds.
pub const MEMBERS_EVER_PER_PAGE: u32 = 500;

/// How far the erasure of a user has come. It empties their messages first, and then cuts the logs of all who saw them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErasurePlace {
    /// The messages up to this one are emptied.
    Messages(Option<AuthorPlace>),
    /// The logs of the members of the conversations up to this one are cut.
    Logs(Option<ConversationId>),
}

/// Erasure. A user whose erasure has begun stands in a table until it is done, so that any node goes on with it.
#[async_trait]
pub trait Erasures: Send + Sync + 'static {
    /// Deletes the user's names, notifications, blocks, when they were last seen, and their positions in conversations,
    /// and notes that their messages have to follow. Once more changes nothing.
    async fn begin_erasure(&self, user: &UserId) -> Result<(), StoreError>;

    /// A user whose erasure isn't done, and how far it has come.
    async fn next_erasure(&self) -> Result<Option<(UserId, ErasurePlace)>, StoreError>;

    /// How far the erasure of this user has come; `None` if none is under way.
    async fn erasure_of(&self, user: &UserId) -> Result<Option<ErasurePlace>, StoreError>;

    /// Notes how far it has come; `None`: it is done.
    async fn keep_erasure(&self, user: &UserId, place: Option<&ErasurePlace>) -> Result<(), StoreError>;

    /// Whether the next step may be taken. An erasure has to have begun `settled_ms` ago: what the user sent just before may
    /// still be on its way. And before logs are cut, all that was committed before the messages were emptied has to be
    /// published: it would come into logs behind the cut.
    async fn erasure_may_go_on(&self, user: &UserId, settled_ms: u64) -> Result<bool, StoreError>;

    /// The first conversation behind `after`, in order of id, in which the user is or was.
    async fn place_of(
        &self,
        user: &UserId,
        after: Option<&ConversationId>,
    ) -> Result<Option<ConversationId>, StoreError>;

    /// A page of all who are or were in a conversation, in order of id.
    async fn members_ever(&self, id: &ConversationId, after: Option<&UserId>) -> Result<Vec<UserId>, StoreError>;
}

impl ErasurePlace {
    /// Its columns: the phase, the conversation, the message.
    pub(super) fn columns(&self) -> (&'static str, Option<&str>, u64) {
        match self {
            Self::Messages(None) => ("messages", None, 0),
            Self::Messages(Some(place)) => ("messages", Some(place.conversation.as_str()), place.seq),
            Self::Logs(conversation) => ("logs", conversation.as_ref().map(ConversationId::as_str), 0),
        }
    }

    /// The place with these columns.
    pub(super) fn of(phase: &str, conversation: Option<ConversationId>, seq: u64) -> Option<Self> {
        match phase {
            "messages" => Some(Self::Messages(conversation.map(|conversation| AuthorPlace { conversation, seq }))),
            "logs" => Some(Self::Logs(conversation)),
            _ => None,
        }
    }
}
