//! The dialect `listings.v1` (seeds 000 and 001): snake_case, ids as integers where they are integers, times with seconds.
//! Where the two documents differ, 000's larger frame serves both.

use serde::Serialize;

use crate::chat_v1::Fields;
use crate::command::Target;
use crate::flat::{Id, Seconds, Texts, unknown_type};
use crate::{Command, Event, Message, ProtocolError, Timestamp, UserId};

/// The subprotocol that names this dialect.
pub const SUBPROTOCOL: &str = "listings.v1";

/// The most `message_read` frames that one receipt makes: those of the newest messages.
const READ_FRAMES_MAX: usize = 100;

/// Reads a frame whose `type` is `kind`.
pub(crate) fn decode(kind: &str, fields: &Fields<'_, '_>, content_chars_max: usize) -> Result<Command, ProtocolError> {
    match kind {
        "ping" => Ok(Command::Ping { timestamp: None }),
        "typing" => Ok(Command::Typing {
            conversation: fields.required_flat_id("chat_id")?,
            is_typing: fields.required_bool("is_typing")?,
        }),
        "mark_read" => match (fields.flat_id("message_id")?, fields.flat_id("chat_id")?) {
            (Some(up_to), Some(conversation)) => Ok(Command::Read { conversation, up_to: Some(up_to) }),
            (Some(message), None) => Ok(Command::ReadMessage { message }),
            (None, Some(conversation)) => Ok(Command::Read { conversation, up_to: None }),
            (None, None) => Err(ProtocolError::field("message_id", "is required (or chat_id)")),
        },
        "send_message" => {
            let target = match (fields.flat_id("chat_id")?, fields.flat_id("receiver_id")?) {
                (Some(conversation), None) => Target::Conversation(conversation),
                (None, Some(user)) => Target::User(user),
                (Some(_), Some(_)) => return Err(ProtocolError::field("receiver_id", "can't stand beside chat_id")),
                (None, None) => return Err(ProtocolError::field("chat_id", "is required (or receiver_id)")),
            };
            fields.flat_send(target, content_chars_max).map(Command::Send)
        }
        _ => Err(unknown_type()),
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Frame<'a> {
    Connected { user_id: Id<'a>, timestamp: Seconds },
    Pong { timestamp: Seconds },
    NewMessage { chat_id: Id<'a>, message: Body<'a>, timestamp: Seconds },
    MessageRead { chat_id: Id<'a>, message_id: u64, read_by: Id<'a>, timestamp: Seconds },
    Typing { chat_id: Id<'a>, user_id: Id<'a>, is_typing: bool, timestamp: Seconds },
}

#[derive(Serialize)]
struct Body<'a> {
    id: u64,
    chat_id: Id<'a>,
    sender_id: Id<'a>,
    /// In a direct conversation.
    #[serde(skip_serializing_if = "Option::is_none")]
    receiver_id: Option<Id<'a>>,
    content: &'a str,
    created_at: Seconds,
    #[serde(skip_serializing_if = "Option::is_none")]
    temp_id: Option<&'a str>,
}

/// Writes the frames of an event.
pub(crate) fn encode(event: &Event, out: &mut Texts) {
    let now = Seconds(Timestamp::now());
    match event {
        Event::AuthSuccess { user_id, connected_at, .. } => {
            out.push(&Frame::Connected { user_id: Id(user_id.as_str()), timestamp: Seconds(*connected_at) });
        }
        Event::Pong { server_time, .. } => out.push(&Frame::Pong { timestamp: Seconds(*server_time) }),
        Event::MessageNew { message, to, .. } | Event::MessageSent { message, to, .. } => {
            out.push(&new_message(message, to.as_ref()));
        }
        Event::MessageReadUpdate { conversation_id, message_ids, read_by, read_at } => {
            let newest = message_ids.iter().skip(message_ids.len().saturating_sub(READ_FRAMES_MAX));
            newest.for_each(|message| {
                out.push(&Frame::MessageRead {
                    chat_id: Id(conversation_id.as_str()),
                    message_id: message.get(),
                    read_by: Id(read_by.as_str()),
                    timestamp: Seconds(*read_at),
                });
            });
        }
        Event::Typing { conversation_id, user_id, is_typing, .. } => out.push(&Frame::Typing {
            chat_id: Id(conversation_id.as_str()),
            user_id: Id(user_id.as_str()),
            is_typing: *is_typing,
            timestamp: now,
        }),
        Event::AuthFailed { .. }
        | Event::Error(_)
        | Event::Goaway { .. }
        | Event::Position { .. }
        | Event::Resync { .. } => out.push_common(event),
        Event::ConversationUpdated { .. }
        | Event::NotificationRead { .. }
        | Event::NotificationUnread { .. }
        | Event::MessageReadAck { .. }
        | Event::MessageDeliveredUpdate { .. }
        | Event::BlockAdded { .. }
        | Event::BlockRemoved { .. }
        | Event::ConversationCreated { .. }
        | Event::ConversationJoined { .. }
        | Event::ConversationLeft { .. }
        | Event::MemberJoined { .. }
        | Event::MemberLeft { .. }
        | Event::StatusBulk { .. }
        | Event::UserOnline { .. }
        | Event::UserOffline { .. }
        | Event::Notification(_)
        | Event::Broadcast { .. } => {}
    }
}

fn new_message<'a>(message: &'a Message, to: Option<&'a UserId>) -> Frame<'a> {
    let chat_id = Id(message.conversation_id.as_str());
    Frame::NewMessage {
        chat_id,
        message: Body {
            id: message.id.get(),
            chat_id,
            sender_id: Id(message.sender_id.as_str()),
            receiver_id: to.map(|user| Id(user.as_str())),
            content: &message.content,
            created_at: Seconds(message.created_at),
            temp_id: message.temp_id.as_deref(),
        },
        timestamp: Seconds(message.created_at),
    }
}
