//! What a client asks for, whichever dialect it speaks. Every value here has been checked.

use crate::lists::names;
use crate::{ConversationId, MessageId, Position, UserId};

/// A command with all its fields checked for shape. Rights are checked later.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Presents a token: the first one, or a fresh one before the old expires.
    Auth {
        /// The token; never logged.
        token: String,
        /// Where to go on from; `Err` holds what the client sent when it is no position.
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
        /// The conversation.
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
        /// The conversation.
        conversation: ConversationId,
        /// The last message that arrived.
        up_to: MessageId,
    },
    /// Replaces the content of one's own message.
    Edit {
        /// The message.
        message: MessageId,
        /// 1 to `MAX_CONTENT_CHARS` characters, without U+0000.
        content: String,
    },
    /// Deletes a message.
    Delete {
        /// The message.
        message: MessageId,
    },
    /// Reacts to a message.
    ReactionAdd {
        /// The message.
        message: MessageId,
        /// With what: see [`crate::dialect::chat::check_emoji`].
        emoji: String,
    },
    /// Takes a reaction back.
    ReactionRemove {
        /// The message.
        message: MessageId,
        /// Which.
        emoji: String,
    },
    /// Starts or ends typing.
    Typing {
        /// The conversation.
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
        /// The conversation.
        conversation: ConversationId,
        /// Its password, where it has one.
        password: Option<String>,
    },
    /// Leaves a conversation, or declines an invitation to it.
    Leave {
        /// The conversation.
        conversation: ConversationId,
    },
    /// Tells everybody who is connected; for admins.
    Broadcast {
        /// 1 to `MAX_CONTENT_CHARS` characters.
        content: String,
    },
    /// Asks who is online.
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

/// The longest emoji of a reaction, in bytes: the longest sequences that are one picture have 35.
pub const EMOJI_BYTES_MAX: usize = 64;

/// The kind of a message whose sender names none.
pub const KIND_TEXT: &str = "text";

/// A position asked for: one that can be looked up, or text that is none (answered by `resync {reason: "invalid"}`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// Go on from here.
    From(Position),
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
    pub temp_id: Option<String>,
    /// What the content is.
    pub kind: String,
    /// The message that it answers.
    pub reply_to: Option<MessageId>,
}

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
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
