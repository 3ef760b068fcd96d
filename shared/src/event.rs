//! An event that the server sends to clients, in any dialect.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::lists::{names, words_of};
use crate::{
    Conversation, ConversationId, Epoch, Message, MessageId, NotificationId, ProtocolError, TempId, Timestamp, UserId,
};

/// An event; its canonical form is `{"type": …, "payload": …}`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "payload", rename_all_fields = "camelCase")]
#[expect(missing_docs, reason = "this type is the contract; /asyncapi.json shows its fields")]
pub enum Event {
    #[serde(rename = "auth_success")]
    AuthSuccess {
        user_id: UserId,
        connection_id: String,
        connected_at: Timestamp,
        epoch: Epoch,
        seq: u64,
        resumed: bool,
        heartbeat_seconds: u64,
        /// The gateway's.
        #[serde(default)]
        version: Cow<'static, str>,
        /// Names of what a client may use that not every gateway has.
        #[serde(default)]
        features: Vec<Cow<'static, str>>,
    },
    #[serde(rename = "auth_failed")]
    AuthFailed { code: crate::ErrorCode, message: Cow<'static, str> },
    #[serde(rename = "pong")]
    Pong {
        #[schemars(schema_with = "any_scalar")]
        timestamp: Box<RawValue>,
        server_time: Timestamp,
    },
    #[serde(rename = "message.sent")]
    MessageSent {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        temp_id: Option<TempId>,
        message: Message,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        duplicate: bool,
        /// In a direct conversation: whom the message is to. In others absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<UserId>,
        /// In other than direct conversations: the sender's name, if one is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sender_name: Option<String>,
    },
    #[serde(rename = "message.new")]
    MessageNew {
        message: Message,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<UserId>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sender_name: Option<String>,
    },
    #[serde(rename = "conversation.updated")]
    ConversationUpdated {
        conversation_id: ConversationId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last_message: Option<Message>,
    },
    #[serde(rename = "notification.unread")]
    NotificationUnread { conversation_id: ConversationId, unread: u64, total_unread: u64 },
    #[serde(rename = "message.read_ack")]
    MessageReadAck {
        conversation_id: ConversationId,
        marked_count: u64,
        read_at: Timestamp,
        /// The reader's position.
        up_to_seq: u64,
        /// The conversation's newest `seq`.
        last_seq: u64,
    },
    #[serde(rename = "message.read_update")]
    MessageReadUpdate {
        conversation_id: ConversationId,
        message_ids: Vec<MessageId>,
        read_by: UserId,
        read_at: Timestamp,
    },
    #[serde(rename = "message.delivered_update")]
    MessageDeliveredUpdate {
        conversation_id: ConversationId,
        up_to: MessageId,
        user_id: UserId,
        delivered_at: Timestamp,
    },
    #[serde(rename = "message.edited")]
    MessageEdited { message: Message },
    #[serde(rename = "message.deleted")]
    MessageDeleted {
        message_id: MessageId,
        conversation_id: ConversationId,
        /// The message's place in the conversation.
        seq: u64,
        rev: u64,
        deleted_at: Timestamp,
    },
    #[serde(rename = "reaction.updated")]
    ReactionUpdated {
        message_id: MessageId,
        conversation_id: ConversationId,
        /// The message's place in the conversation.
        seq: u64,
        rev: u64,
        user_id: UserId,
        emoji: String,
        added: bool,
        reactions: BTreeMap<String, Vec<UserId>>,
    },
    #[serde(rename = "typing")]
    Typing {
        conversation_id: ConversationId,
        user_id: UserId,
        is_typing: bool,
        /// In other than direct conversations, if one is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        username: Option<String>,
    },
    #[serde(rename = "block.added")]
    BlockAdded { user_id: UserId },
    #[serde(rename = "block.removed")]
    BlockRemoved { user_id: UserId },
    #[serde(rename = "conversation.created")]
    ConversationCreated { conversation: Conversation },
    /// The conversation without its newest message; members' `readSeq` is 0, because each reader may see others.
    #[serde(rename = "conversation.changed")]
    ConversationChanged {
        conversation: Conversation,
        /// The user who changed it; absent for a backend.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        changed_by: Option<UserId>,
        /// It became large, or small again: the conversation's change counter from which its events come the other way.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rev: Option<u64>,
        /// The `seq` of its newest message then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last_seq: Option<u64>,
    },
    /// Where a connection is in a large conversation: the next event there has the next `rev`.
    #[serde(rename = "conversation.position")]
    ConversationPosition { conversation_id: ConversationId, rev: u64, last_seq: u64 },
    /// What a connection missed of a large conversation has to be fetched; its events go on behind this position.
    #[serde(rename = "conversation.resync")]
    ConversationResync { conversation_id: ConversationId, reason: ResyncReason, rev: u64, last_seq: u64 },
    #[serde(rename = "conversation.deleted")]
    ConversationDeleted {
        conversation_id: ConversationId,
        /// The user who deleted it; absent for a backend.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deleted_by: Option<UserId>,
        deleted_at: Timestamp,
    },
    #[serde(rename = "conversation.joined")]
    ConversationJoined { conversation: Conversation },
    #[serde(rename = "conversation.left")]
    ConversationLeft { conversation_id: ConversationId },
    #[serde(rename = "member.joined")]
    MemberJoined {
        conversation_id: ConversationId,
        user_id: UserId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        username: Option<String>,
        /// The version of the members: of events about one user, the one with the highest version holds.
        #[serde(default)]
        version: u64,
    },
    #[serde(rename = "member.left")]
    MemberLeft {
        conversation_id: ConversationId,
        user_id: UserId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        username: Option<String>,
        /// As in `member.joined`.
        #[serde(default)]
        version: u64,
    },
    /// In a large conversation more came and went than are told of one by one.
    #[serde(rename = "members.changed")]
    MembersChanged { conversation_id: ConversationId, member_count: u64 },
    #[serde(rename = "status.bulk")]
    StatusBulk { users: BTreeMap<UserId, UserStatus> },
    #[serde(rename = "user.online")]
    UserOnline { user_id: UserId, online_at: Timestamp },
    #[serde(rename = "user.offline")]
    UserOffline { user_id: UserId, last_seen: Timestamp },
    #[serde(rename = "notification")]
    Notification(#[schemars(schema_with = "any_object")] serde_json::Value),
    /// An admin's message to every connected user.
    #[serde(rename = "broadcast")]
    Broadcast {
        content: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sent_at: Option<Timestamp>,
    },
    /// To the devices of the user who marked notifications as read: these, or all.
    #[serde(rename = "notification.read")]
    NotificationRead {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        notification_ids: Option<Vec<NotificationId>>,
    },
    #[serde(rename = "goaway")]
    Goaway { reconnect_window_ms: u64, reason: Cow<'static, str> },
    #[serde(rename = "position")]
    Position { epoch: Epoch, seq: u64 },
    #[serde(rename = "resync")]
    Resync {
        reason: ResyncReason,
        epoch: Epoch,
        seq: u64,
        /// Of the messages that it stands for, if all are of one conversation.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        conversation_id: Option<ConversationId>,
        /// The message that it stands for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message_id: Option<MessageId>,
        /// The messages that it stands for, if they are several.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        message_ids: Vec<MessageId>,
        /// The kept notifications that it stands for.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        notification_ids: Vec<NotificationId>,
    },
    #[serde(rename = "error")]
    Error(ProtocolError),
}

/// The client's timestamp, as the client sent it.
fn any_scalar(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": ["string", "number"] })
}

/// A backend's own.
fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "object" })
}

/// Whether a user is online, and since when not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserStatus {
    /// Connected to some node now.
    pub online: bool,
    /// When their last connection closed, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
}

/// Why a client has to fetch what it missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ResyncReason {
    /// The log has another epoch.
    Epoch,
    /// The log no longer reaches back that far.
    Trimmed,
    /// The position lies after the log's end.
    Future,
    /// The sent value is not a position.
    Invalid,
}

words_of! {
    ResyncReason,
    /// The word in frames and metric labels.
    as_str {
        Epoch => "epoch",
        Trimmed => "trimmed",
        Future => "future",
        Invalid => "invalid",
    }
}

// Metrics look names up in this order, so the frequent ones stand first.
names! {
    Event {
        Self::MessageSent { .. } => "message.sent",
        Self::MessageNew { .. } => "message.new",
        Self::AuthSuccess { .. } => "auth_success",
        Self::AuthFailed { .. } => "auth_failed",
        Self::Pong { .. } => "pong",
        Self::ConversationUpdated { .. } => "conversation.updated",
        Self::NotificationUnread { .. } => "notification.unread",
        Self::MessageReadAck { .. } => "message.read_ack",
        Self::MessageReadUpdate { .. } => "message.read_update",
        Self::MessageDeliveredUpdate { .. } => "message.delivered_update",
        Self::MessageEdited { .. } => "message.edited",
        Self::MessageDeleted { .. } => "message.deleted",
        Self::ReactionUpdated { .. } => "reaction.updated",
        Self::Typing { .. } => "typing",
        Self::BlockAdded { .. } => "block.added",
        Self::BlockRemoved { .. } => "block.removed",
        Self::ConversationCreated { .. } => "conversation.created",
        Self::ConversationJoined { .. } => "conversation.joined",
        Self::ConversationChanged { .. } => "conversation.changed",
        Self::ConversationPosition { .. } => "conversation.position",
        Self::ConversationResync { .. } => "conversation.resync",
        Self::ConversationDeleted { .. } => "conversation.deleted",
        Self::ConversationLeft { .. } => "conversation.left",
        Self::MemberJoined { .. } => "member.joined",
        Self::MemberLeft { .. } => "member.left",
        Self::MembersChanged { .. } => "members.changed",
        Self::StatusBulk { .. } => "status.bulk",
        Self::UserOnline { .. } => "user.online",
        Self::UserOffline { .. } => "user.offline",
        Self::Notification(_) => "notification",
        Self::Broadcast { .. } => "broadcast",
        Self::NotificationRead { .. } => "notification.read",
        Self::Goaway { .. } => "goaway",
        Self::Position { .. } => "position",
        Self::Resync { .. } => "resync",
        Self::Error(_) => "error",
    }
}

impl Event {
    /// The canonical envelope.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Every payload is a struct with string keys or a `Value`, and writing to memory can't fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The canonical envelope with the client's `ref`, for what answers one connection.
    /// `reference` is the JSON text that the client sent.
    #[must_use]
    pub fn to_json_with_ref(&self, reference: Option<&str>) -> String {
        let mut text = self.to_json();
        if let Some(reference) = reference {
            text.truncate(text.len().saturating_sub(1));
            text.push_str(",\"ref\":");
            text.push_str(reference);
            text.push('}');
        }
        text
    }
}
