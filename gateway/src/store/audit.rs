//! The audit trail: a line for each change of connections, memberships and messages. Never a message's content.

use async_trait::async_trait;
use serde_json::{Value, json};
use shared::{ConversationId, MessageId, Role, Timestamp, UserId};

use super::StoreError;

/// One line of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// When it happened, by the node's clock; lines are written later, in batches.
    pub at: Timestamp,
    /// The user that the line is about; `None` if it is about several or all.
    pub user: Option<UserId>,
    /// The conversation, if it happened in one.
    pub conversation: Option<ConversationId>,
    /// The connection, if it happened on one.
    pub connection: Option<String>,
    /// The event itself.
    pub act: AuditAct,
}

/// The giver of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Giver {
    /// The user with an admin's token, or for whom a backend acts; `None`: a backend in its own name.
    pub user: Option<UserId>,
    /// Whether it came with the API key.
    pub is_backend: bool,
}

impl Giver {
    /// A user in their own name.
    #[must_use]
    pub fn user(user: &UserId) -> Self {
        Self { user: Some(user.clone()), is_backend: false }
    }

    /// A backend in its own name.
    #[must_use]
    pub fn backend() -> Self {
        Self { user: None, is_backend: true }
    }

    /// The detail of what was done by this one; a backend is named as such, with the user for whom it acts.
    fn named<const N: usize>(&self, more: [(&str, Value); N]) -> Value {
        let mut detail = match self.is_backend {
            true => json!({ "by": null, "backend": true, "actingFor": self.user }),
            false => json!({ "by": self.user }),
        };
        if let Some(members) = detail.as_object_mut() {
            members.extend(more.into_iter().map(|(name, value)| (name.to_owned(), value)));
        }
        detail
    }
}

/// An order to the whole cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditOrder {
    /// The line's user is to be disconnected.
    Disconnect {
        /// The reason that was given.
        reason: Option<String>,
    },
    /// The tokens of the line's user are revoked.
    Revoke,
    /// An event goes to users.
    Publish {
        /// The event's type.
        kind: String,
        /// The users, the first of them if they are many.
        users: Vec<UserId>,
        /// How many users.
        count: usize,
    },
    /// Messages of the line's user are deleted.
    DeleteMessages {
        /// Only in this conversation.
        conversation: Option<ConversationId>,
        /// Only those from then on.
        since: Option<Timestamp>,
        /// How many this order deleted.
        deleted: u64,
    },
    /// What is kept of the line's user is to be erased.
    Erase,
    /// What is kept of the line's user is read.
    Export,
    /// An event goes to everybody who is connected.
    Broadcast {
        /// The event's type.
        kind: String,
    },
}

/// The event of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditAct {
    /// A connection became the user's.
    ConnectionOpened {
        /// The dialect that it speaks.
        dialect: &'static str,
    },
    /// A connection of the user's ended.
    ConnectionClosed {
        /// How long it was open, in seconds.
        open_s: u32,
        /// The close code, if this node closed it.
        code: Option<u16>,
    },
    /// The user joined.
    Joined {
        /// The user, or a backend that acts for them.
        by: Giver,
    },
    /// The user left, or declined an invitation.
    Left {
        /// The user, or a backend that acts for them.
        by: Giver,
    },
    /// The user was made a member.
    Added {
        /// The one who did it.
        by: Giver,
        /// The new member's rights.
        role: Role,
    },
    /// The user was invited.
    Invited {
        /// The one who did it.
        by: Giver,
    },
    /// The user was removed.
    Kicked {
        /// The one who did it.
        by: Giver,
    },
    /// The user was removed, and can't join again.
    Banned {
        /// The one who did it.
        by: Giver,
    },
    /// The user may come back.
    Unbanned {
        /// The one who did it.
        by: Giver,
    },
    /// The user may not write for some time.
    Muted {
        /// The one who did it.
        by: Giver,
        /// For how long, in seconds.
        seconds: u64,
    },
    /// The user may write again.
    Unmuted {
        /// The one who did it.
        by: Giver,
    },
    /// The user got other rights.
    RoleChanged {
        /// The one who did it.
        by: Giver,
        /// The new rights.
        role: Role,
    },
    /// The conversation's title, visibility or password was changed.
    ConversationChanged {
        /// The one who did it.
        by: Giver,
    },
    /// The conversation was deleted.
    ConversationDeleted {
        /// The one who did it.
        by: Giver,
    },
    /// The user sent a message.
    Message {
        /// The message's id.
        id: MessageId,
    },
    /// The user changed a message of theirs.
    MessageEdited {
        /// The message's id.
        id: MessageId,
    },
    /// An order was given. Whether it was carried out on every node is not told.
    Ordered {
        /// The order.
        order: AuditOrder,
        /// The one who gave it.
        by: Giver,
    },
    /// A message of the user's was deleted.
    MessageDeleted {
        /// The message's id.
        id: MessageId,
        /// The one who deleted it: the sender, a moderator, or a backend.
        by: Giver,
    },
}

impl AuditAct {
    /// The word in the column `kind`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ConnectionOpened { .. } => "connection_opened",
            Self::ConnectionClosed { .. } => "connection_closed",
            Self::Joined { .. } => "joined",
            Self::Left { .. } => "left",
            Self::Added { .. } => "added",
            Self::Invited { .. } => "invited",
            Self::Kicked { .. } => "kicked",
            Self::Banned { .. } => "banned",
            Self::Unbanned { .. } => "unbanned",
            Self::Muted { .. } => "muted",
            Self::Unmuted { .. } => "unmuted",
            Self::RoleChanged { .. } => "role_changed",
            Self::ConversationChanged { .. } => "conversation_changed",
            Self::ConversationDeleted { .. } => "conversation_deleted",
            Self::Message { .. } => "message",
            Self::MessageEdited { .. } => "message_edited",
            Self::MessageDeleted { .. } => "message_deleted",
            Self::Ordered { order: AuditOrder::Disconnect { .. }, .. } => "disconnect_ordered",
            Self::Ordered { order: AuditOrder::Revoke, .. } => "revoke_ordered",
            Self::Ordered { order: AuditOrder::Publish { .. }, .. } => "publish_ordered",
            Self::Ordered { order: AuditOrder::DeleteMessages { .. }, .. } => "delete_messages_ordered",
            Self::Ordered { order: AuditOrder::Erase, .. } => "erase_ordered",
            Self::Ordered { order: AuditOrder::Export, .. } => "export_ordered",
            Self::Ordered { order: AuditOrder::Broadcast { .. }, .. } => "broadcast_ordered",
        }
    }

    /// The column `detail`: a JSON object, or nothing.
    #[must_use]
    pub fn detail(&self) -> Option<String> {
        let detail = match self {
            Self::ConnectionOpened { dialect } => json!({ "dialect": dialect }),
            Self::ConnectionClosed { open_s, code: Some(code) } => json!({ "openSeconds": open_s, "code": code }),
            Self::ConnectionClosed { open_s, code: None } => json!({ "openSeconds": open_s }),
            Self::Joined { by } | Self::Left { by } if !by.is_backend => return None,
            Self::Muted { by, seconds } => by.named([("seconds", json!(seconds))]),
            Self::Added { by, role } | Self::RoleChanged { by, role } => by.named([("role", json!(role))]),
            Self::Joined { by }
            | Self::Left { by }
            | Self::Invited { by }
            | Self::Kicked { by }
            | Self::Banned { by }
            | Self::Unbanned { by }
            | Self::Unmuted { by }
            | Self::ConversationChanged { by }
            | Self::ConversationDeleted { by } => by.named([]),
            // Written by hand: there is one for each message.
            Self::Message { id } | Self::MessageEdited { id } => return Some(format!(r#"{{"messageId":"{id}"}}"#)),
            Self::MessageDeleted { id, by } => by.named([("messageId", json!(id))]),
            Self::Ordered { order, by: Giver { user, is_backend } } => {
                let by = if *is_backend { None } else { user.as_ref() };
                let acting_for = if *is_backend { user.as_ref() } else { None };
                let order = match order {
                    AuditOrder::Disconnect { reason } => json!({ "reason": reason }),
                    AuditOrder::Revoke | AuditOrder::Erase | AuditOrder::Export => json!({}),
                    AuditOrder::Publish { kind, users, count } => {
                        json!({ "type": kind, "users": users, "count": count })
                    }
                    AuditOrder::DeleteMessages { conversation, since, deleted } => {
                        json!({ "conversationId": conversation, "since": since, "deleted": deleted })
                    }
                    AuditOrder::Broadcast { kind } => json!({ "type": kind }),
                };
                json!({ "by": by, "backend": is_backend, "actingFor": acting_for, "order": order })
            }
        };
        Some(detail.to_string())
    }
}

/// The audit trail, in the table `audit`. Only operators delete from it.
#[async_trait]
pub trait Audit: Send + Sync + 'static {
    /// Appends lines in one transaction. After `Unavailable` the caller may try again; the lines of a commit
    /// whose answer was lost then stand there twice.
    async fn write_audit(&self, entries: &[AuditEntry]) -> Result<(), StoreError>;
}
