//! Why a call of the store failed. The caller turns a refusal into an error code.

use crate::overload::Busy;

/// Why the store did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The store is unreachable or did not answer in time. It is unknown whether a write was committed.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// A fault in a statement or in the data; a retry won't help.
    #[error("the store failed: {0}")]
    Failed(String),
    /// Too much waits. Nothing of it was written.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// The request was valid, and the rules forbid it.
    #[error("refused: {0:?}")]
    Refused(Refusal),
}

/// Why a write was refused; the caller turns it into an error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No such conversation, user or message, or none that this user may see.
    NotFound,
    /// The user is no accepted member.
    NotMember,
    /// The user is banned.
    Banned,
    /// One of the two has blocked the other.
    Blocked,
    /// The member's role doesn't allow it.
    Forbidden,
    /// The member may not write for some time.
    Muted,
    /// The conversation has [`MEMBERS_MAX`](super::MEMBERS_MAX) members.
    Full,
    /// It contradicts the state (an id that is taken).
    Conflict,
    /// The sender used the `temp_id` before, for another message.
    UsedTempId,
    /// The last owner can't leave or step down while others are there.
    LastOwner,
    /// A limit on their number is reached (reactions of a message).
    Limit,
}

impl From<Refusal> for StoreError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
