//! Messages and conversations as clients see them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ConversationId, MessageData, MessageId, TempId, Timestamp, UserId};

/// A stored message, as frames and REST show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// The generated id.
    pub id: MessageId,
    /// The conversation that it stands in.
    pub conversation_id: ConversationId,
    /// Its place in the conversation: from 1, gapless, in commit order.
    pub seq: u64,
    /// The conversation's change counter when this message last changed.
    pub rev: u64,
    /// The sender.
    pub sender_id: UserId,
    /// The kind of the content; `text` unless the sender gave another.
    pub kind: String,
    /// The content; empty once deleted.
    pub content: String,
    /// The sender's own name for it, by which a retry is recognised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temp_id: Option<TempId>,
    /// The message that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<MessageId>,
    /// What the application keeps beside the content; gone once deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<MessageData>,
    /// The store's time of commit.
    pub created_at: Timestamp,
    /// When it was last edited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edited_at: Option<Timestamp>,
    /// When it was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_at: Option<Timestamp>,
    /// The users who reacted, by emoji, in the order of their reactions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reactions: BTreeMap<String, Vec<UserId>>,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum $name { $($(#[$variant_doc])* #[serde(rename = $word)] $variant),+ }

        impl $name {
            /// The word in frames and tables.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// The value that this word names.
            #[must_use]
            pub fn parse(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

words! {
    /// The kind of a conversation, which decides who may join.
    ConversationKind {
        /// Two users, opened by the first message between them.
        Direct = "direct",
        /// Members that were added or invited.
        Group = "group",
        /// Members that joined.
        Channel = "channel",
    }
}

words! {
    /// Whether a conversation can be joined without an invitation.
    Visibility {
        /// Anybody may join, with the password if there is one.
        Public = "public",
        /// Only those that were added or invited.
        Private = "private",
    }
}

words! {
    /// A member's rights.
    Role {
        /// Writes and reads.
        Member = "member",
        /// Adds, kicks and bans members as well.
        Admin = "admin",
        /// Appoints admins as well.
        Owner = "owner",
    }
}

words! {
    /// How a user stands to a conversation.
    MemberState {
        /// A member.
        Accepted = "accepted",
        /// May join, and has not yet.
        Invited = "invited",
        /// Can't join.
        Banned = "banned",
    }
}

/// A user in the list of a conversation's members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListedMember {
    /// Who.
    pub user_id: UserId,
    /// The name that their token gave, if one is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Their rights.
    pub role: Role,
    /// Whether they are a member; others are listed for owners, admins and backends.
    pub state: MemberState,
    /// The `seq` up to which they have read; absent if the one who asks and they share a block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_seq: Option<u64>,
    /// The `seq` up to which their devices have received; absent like `readSeq`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivered_seq: Option<u64>,
}

/// A channel that everybody may join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListedChannel {
    /// The channel.
    pub id: ConversationId,
    /// The title, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Whether joining takes a password.
    pub has_password: bool,
    /// How many accepted members it has.
    pub member_count: u64,
}

/// A conversation as one of its members sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Conversation {
    /// The application's id, or a generated one.
    pub id: ConversationId,
    /// Direct, group or channel.
    pub kind: ConversationKind,
    /// The title, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Who may join.
    pub visibility: Visibility,
    /// Whether joining takes a password.
    pub has_password: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// The `seq` of its newest message; 0 without one.
    pub last_seq: u64,
    /// The conversation's change counter.
    pub rev: u64,
    /// Its newest message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_message: Option<Message>,
    /// How many accepted members it has.
    pub member_count: u64,
    /// Whether it has so many members that its events are published once for all of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub large: bool,
    /// Its first members by id, at most a hundred.
    pub members: Vec<MemberView>,
    /// How many messages the calling user has not seen; absent if the caller isn't a user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<u64>,
}

/// A member in a [`Conversation`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemberView {
    /// Who.
    pub user_id: UserId,
    /// Their rights.
    pub role: Role,
    /// The `seq` up to which they have read; 0 if the one who asks and they share a block.
    pub read_seq: u64,
}
