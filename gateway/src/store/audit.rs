//! The audit trail: what is written down of connections, memberships and messages. Never a message's content.

use async_trait::async_trait;
use serde_json::json;
use shared::{ConversationId, MessageId, Role, Timestamp, UserId};

use super::StoreError;

/// One line of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// When it happened, by the node's clock; lines are written later, in batches.
    pub at: Timestamp,
    /// Whom it is about.
    pub user: UserId,
    /// Where it happened.
    pub conversation: Option<ConversationId>,
    /// On which connection.
    pub connection: Option<String>,
    /// What happened.
    pub act: AuditAct,
}

/// What happened. `by` is who did it to the user: `None` is a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditAct {
    /// A connection became the user's.
    ConnectionOpened {
        /// The dialect that it speaks.
        dialect: &'static str,
    },
    /// It ended.
    ConnectionClosed {
        /// How long it was open, in seconds.
        open_s: u32,
        /// The close code, if this node closed it.
        code: Option<u16>,
    },
    /// The user came in.
    Joined,
    /// The user went, or declined an invitation.
    Left,
    /// The user was made a member.
    Added {
        /// By whom.
        by: Option<UserId>,
        /// With which rights.
        role: Role,
    },
    /// The user was invited.
    Invited {
        /// By whom.
        by: Option<UserId>,
    },
    /// The user was taken out.
    Kicked {
        /// By whom.
        by: Option<UserId>,
    },
    /// The user was taken out and is kept out.
    Banned {
        /// By whom.
        by: Option<UserId>,
    },
    /// The user may come back.
    Unbanned {
        /// By whom.
        by: Option<UserId>,
    },
    /// The user got other rights.
    RoleChanged {
        /// By whom.
        by: Option<UserId>,
        /// Which.
        role: Role,
    },
    /// The user sent a message.
    Message {
        /// Which.
        id: MessageId,
    },
    /// The user changed a message of theirs.
    MessageEdited {
        /// Which.
        id: MessageId,
    },
    /// A message of the user's was deleted.
    MessageDeleted {
        /// Which.
        id: MessageId,
        /// By whom: themselves, a moderator, or a backend.
        by: Option<UserId>,
    },
}

impl AuditAct {
    /// The word in the column `kind`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ConnectionOpened { .. } => "connection_opened",
            Self::ConnectionClosed { .. } => "connection_closed",
            Self::Joined => "joined",
            Self::Left => "left",
            Self::Added { .. } => "added",
            Self::Invited { .. } => "invited",
            Self::Kicked { .. } => "kicked",
            Self::Banned { .. } => "banned",
            Self::Unbanned { .. } => "unbanned",
            Self::RoleChanged { .. } => "role_changed",
            Self::Message { .. } => "message",
            Self::MessageEdited { .. } => "message_edited",
            Self::MessageDeleted { .. } => "message_deleted",
        }
    }

    /// The column `detail`: a JSON object, or nothing.
    #[must_use]
    pub fn detail(&self) -> Option<String> {
        let detail = match self {
            Self::ConnectionOpened { dialect } => json!({ "dialect": dialect }),
            Self::ConnectionClosed { open_s, code: Some(code) } => json!({ "openSeconds": open_s, "code": code }),
            Self::ConnectionClosed { open_s, code: None } => json!({ "openSeconds": open_s }),
            Self::Joined | Self::Left => return None,
            Self::Added { by, role } | Self::RoleChanged { by, role } => json!({ "by": by, "role": role }),
            Self::Invited { by } | Self::Kicked { by } | Self::Banned { by } | Self::Unbanned { by } => {
                json!({ "by": by })
            }
            // One for each message that is sent.
            Self::Message { id } | Self::MessageEdited { id } => return Some(format!(r#"{{"messageId":"{id}"}}"#)),
            Self::MessageDeleted { id, by } => json!({ "messageId": id, "by": by }),
        };
        Some(detail.to_string())
    }
}

/// Where the audit trail is kept: the table `audit` (PROTOCOL §6). Deleting from it is the operator's.
#[async_trait]
pub trait Audit: Send + Sync + 'static {
    /// Appends lines in one transaction. After `Unavailable` the caller may try again; a commit whose answer was lost then
    /// stands there twice.
    async fn write_audit(&self, entries: &[AuditEntry]) -> Result<(), StoreError>;
}
