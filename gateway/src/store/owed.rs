//! What a change owes a backend's webhook: its events, written in the change's transaction. No SQL.

use serde::{Deserialize, Serialize};
use shared::{ConversationId, MessageId, Role, UserId};

use super::StoreError;

/// What an event tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OwedKind {
    /// A message was stored.
    MessageCreated,
    /// A message has another content.
    MessageEdited,
    /// A message was deleted.
    MessageDeleted,
    /// A reaction was added or taken back.
    ReactionUpdated,
    /// A conversation was made.
    ConversationCreated,
    /// A conversation has another title, visibility or password.
    ConversationChanged,
    /// A conversation was deleted.
    ConversationDeleted,
    /// A user became a member.
    MemberJoined,
    /// A user is no member any more.
    MemberLeft,
    /// A member has another role.
    MemberRole,
    /// A user was banned.
    MemberBanned,
}

impl OwedKind {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::MessageCreated,
        Self::MessageEdited,
        Self::MessageDeleted,
        Self::ReactionUpdated,
        Self::ConversationCreated,
        Self::ConversationChanged,
        Self::ConversationDeleted,
        Self::MemberJoined,
        Self::MemberLeft,
        Self::MemberRole,
        Self::MemberBanned,
    ];

    /// Its name, as the backend reads it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MessageCreated => "message.created",
            Self::MessageEdited => "message.edited",
            Self::MessageDeleted => "message.deleted",
            Self::ReactionUpdated => "reaction.updated",
            Self::ConversationCreated => "conversation.created",
            Self::ConversationChanged => "conversation.changed",
            Self::ConversationDeleted => "conversation.deleted",
            Self::MemberJoined => "member.joined",
            Self::MemberLeft => "member.left",
            Self::MemberRole => "member.role",
            Self::MemberBanned => "member.banned",
        }
    }

    pub(super) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// Whether the conversation is posted with it.
    pub(super) fn shows_conversation(self) -> bool {
        matches!(self, Self::ConversationCreated | Self::ConversationChanged)
    }
}

/// The fields of an event that can't be read from the store later.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwedDetail {
    /// Of whom it tells: a member, or the one who reacted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// The member's role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// The reaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emoji: Option<String>,
    /// Whether the reaction was added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added: Option<bool>,
    /// The user who made the change; absent if a backend did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<UserId>,
}

/// An event that is written with its change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwedEvent {
    /// What it tells of.
    pub kind: OwedKind,
    /// The conversation that was changed.
    pub conversation: ConversationId,
    /// The conversation's `rev` behind the change, if the change counted it up; the store puts in the one of the commit.
    pub rev: Option<u64>,
    /// The message that was changed.
    pub message: Option<MessageId>,
    /// Its other fields.
    pub detail: OwedDetail,
}

impl OwedEvent {
    /// The column `detail`: null without any.
    pub(super) fn detail_column(&self) -> Result<Option<String>, StoreError> {
        if self.detail == OwedDetail::default() {
            return Ok(None);
        }
        serde_json::to_string(&self.detail).map(Some).map_err(|fault| StoreError::Failed(fault.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_one_name_each() {
        for kind in OwedKind::ALL {
            assert_eq!(OwedKind::parse(kind.as_str()), Some(kind));
        }
        assert_eq!(OwedKind::parse("message"), None);
    }
}
