//! A client's command, in any dialect. Every value here has been checked.

use serde::{Deserialize, Serialize};

use crate::lists::names;
use crate::{ConversationId, MessageData, MessageId, Places, Position, ProtocolError, TempId, UserId};

/// A command with all its fields checked for shape. Rights are checked later.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    missing_docs,
    reason = "a field without a doc is the command's conversation, message or emoji, as its name says"
)]
pub enum Command {
    /// Presents a token: the first one, or a fresh one before the old expires.
    Auth {
        /// The token; never logged.
        token: String,
        /// Where to go on from, if the client wants that.
        resume: Option<Resume>,
    },
    /// Asks for a `pong`.
    Ping {
        /// Sent back as it came: a JSON value in its own text.
        timestamp: Option<String>,
    },
    /// Sends a message.
    Send(SendMessage),
    /// Marks messages as read up to `up_to`, or all of them.
    Read {
        conversation: ConversationId,
        /// The last message read; the newest if absent.
        up_to: Option<MessageId>,
    },
    /// Marks messages as read up to this one, wherever it stands.
    ReadMessage {
        /// The last message read.
        message: MessageId,
    },
    /// Says that messages up to `up_to` have reached the device.
    Delivered {
        conversation: ConversationId,
        /// The last message that arrived.
        up_to: MessageId,
    },
    /// Replaces the content of one's own message.
    Edit {
        message: MessageId,
        /// 1 to `MAX_CONTENT_CHARS` characters, without U+0000.
        content: String,
    },
    /// Deletes a message.
    Delete { message: MessageId },
    /// Reacts to a message.
    ReactionAdd {
        message: MessageId,
        /// With what: see [`check_emoji`](crate::emoji::check_emoji).
        emoji: String,
    },
    /// Takes a reaction back.
    ReactionRemove { message: MessageId, emoji: String },
    /// Starts or ends typing.
    Typing {
        conversation: ConversationId,
        /// Whether the user is typing now.
        is_typing: bool,
    },
    /// Blocks a user.
    BlockAdd(UserRef),
    /// Lifts a block.
    BlockRemove(UserRef),
    /// Joins a conversation, or accepts an invitation to it.
    Join {
        conversation: ConversationId,
        /// Its password, where it has one.
        password: Option<String>,
    },
    /// Leaves a conversation, or declines an invitation to it.
    Leave { conversation: ConversationId },
    /// Sends to every connected user; for admins.
    Broadcast {
        /// 1 to `MAX_CONTENT_CHARS` characters.
        content: String,
    },
    /// Queries presence.
    PresenceQuery {
        /// About whom; at most [`PRESENCE_QUERY_USERS_MAX`].
        users: Vec<UserId>,
    },
}

/// The most users in one `presence.query`.
pub const PRESENCE_QUERY_USERS_MAX: usize = 500;

/// The longest `tempId`, in bytes.
pub const TEMP_ID_BYTES_MAX: usize = 128;

/// The longest `kind` of a message, in bytes.
pub const KIND_BYTES_MAX: usize = 32;

/// The longest password of a conversation, in bytes.
pub const PASSWORD_BYTES_MAX: usize = 128;

/// The kind of a message whose sender names none.
pub const KIND_TEXT: &str = "text";

/// The kind of what backends alone say.
pub const KIND_SYSTEM: &str = "system";

/// A position asked for: one that can be looked up, or text that is none (answered by `resync {reason: "invalid"}`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// Go on from here; and in these large conversations from there. `None`: a client that doesn't know of them.
    From(Position, Option<Places>),
    /// The client sent something that is no position.
    Invalid,
}

/// The body of `message.send`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendMessage {
    /// Where to.
    pub target: Target,
    /// 1 to `MAX_CONTENT_CHARS` characters, without U+0000.
    pub content: String,
    /// The client's own name for the message.
    pub temp_id: Option<TempId>,
    /// The kind of the content.
    pub kind: String,
    /// The message that it answers.
    pub reply_to: Option<MessageId>,
    /// What the application keeps beside the content.
    pub data: Option<MessageData>,
}

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Into this conversation.
    Conversation(ConversationId),
    /// To this user: the direct conversation of the two, opened if need be.
    User(UserId),
}

/// A user named by id or by user name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserRef {
    /// By id.
    Id(UserId),
    /// By the name that their token gave.
    Username(String),
}

/// Checks a message's content: 1 to `chars_max` characters, no U+0000 (PostgreSQL can't hold it).
pub fn check_content(text: &str, chars_max: usize) -> Result<(), ProtocolError> {
    if text.is_empty() {
        return Err(ProtocolError::field("content", "is empty"));
    }
    if text.len() > chars_max && text.chars().count() > chars_max {
        return Err(ProtocolError::field("content", format_args!("is longer than {chars_max} characters")));
    }
    if text.contains('\0') {
        return Err(ProtocolError::field("content", "holds U+0000"));
    }
    Ok(())
}

/// Checks a message's kind: 1 to 32 of `a-z 0-9 _ . -`. A node's setting says which of them it takes.
pub fn check_kind(text: &str) -> Result<(), ProtocolError> {
    let is_good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'.' | b'-');
    if (1..=KIND_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_good) {
        return Ok(());
    }
    Err(ProtocolError::field("kind", "must be 1 to 32 of a-z 0-9 _ . -"))
}

// `broadcast` is spoken in `social.v1` alone.
names! {
    Command {
        Self::Auth { .. } => "auth",
        Self::Ping { .. } => "ping",
        Self::Send(_) => "message.send",
        Self::Read { .. } | Self::ReadMessage { .. } => "message.read",
        Self::Delivered { .. } => "message.delivered",
        Self::Edit { .. } => "message.edit",
        Self::Delete { .. } => "message.delete",
        Self::ReactionAdd { .. } => "reaction.add",
        Self::ReactionRemove { .. } => "reaction.remove",
        Self::Typing { .. } => "typing",
        Self::BlockAdd(_) => "block.add",
        Self::BlockRemove(_) => "block.remove",
        Self::Join { .. } => "conversation.join",
        Self::Leave { .. } => "conversation.leave",
        Self::Broadcast { .. } => "broadcast",
        Self::PresenceQuery { .. } => "presence.query",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_characters_of_four_bytes_are_ten_characters() {
        let text = "🦜".repeat(10);
        assert!(check_content(&text, 10).is_ok());
        assert!(check_content(&text, 9).is_err());
    }
}
