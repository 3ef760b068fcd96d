//! The dialect `listings.v1` (seeds 000 and 001): snake_case, ids as integers where they are integers, times with seconds.
//! Where the two documents differ, 000's larger frame serves both.

use schemars::JsonSchema;
use serde::Serialize;

use crate::command::Target;
use crate::dialect::fields::{Fields, unknown_type};
use crate::dialect::flat::{Id, Seconds, Texts};
use crate::{Command, Event, Message, MessageData, ProtocolError, Timestamp, UserId};

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

/// A frame to a client.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schemars(rename = "ListingsFrame")]
#[expect(missing_docs, reason = "the fields are those of seed 000, under the same names")]
pub enum Frame<'a> {
    Connected { user_id: Id<'a>, timestamp: Seconds },
    Pong { timestamp: Seconds },
    NewMessage { chat_id: Id<'a>, message: Body<'a>, timestamp: Seconds },
    MessageRead { chat_id: Id<'a>, message_id: u64, read_by: Id<'a>, timestamp: Seconds },
    Typing { chat_id: Id<'a>, user_id: Id<'a>, is_typing: bool, timestamp: Seconds },
}

/// A message in a frame.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ListingsMessage")]
pub struct Body<'a> {
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
    /// The application's own, as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a MessageData>,
}

/// Writes the frames of an event.
pub(crate) fn encode(event: &Event, now: Timestamp, out: &mut Texts) {
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
            timestamp: Seconds(now),
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
        | Event::MessageEdited { .. }
        | Event::MessageDeleted { .. }
        | Event::ReactionUpdated { .. }
        | Event::BlockAdded { .. }
        | Event::BlockRemoved { .. }
        | Event::ConversationCreated { .. }
        | Event::ConversationJoined { .. }
        | Event::ConversationChanged { .. }
        | Event::ConversationPosition { .. }
        | Event::ConversationResync { .. }
        | Event::ConversationDeleted { .. }
        | Event::ConversationLeft { .. }
        | Event::MemberJoined { .. }
        | Event::MemberLeft { .. }
        | Event::MembersChanged { .. }
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
            data: message.data.as_ref(),
        },
        timestamp: Seconds(message.created_at),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::dialect::Decoder;
    use crate::{Dialect, Wire};

    fn decode(frame: &str) -> Result<Command, ProtocolError> {
        Decoder::new(4000).decode_as(Dialect::Listings, &mut frame.as_bytes().to_vec()).command
    }

    /// The frames of a canonical envelope.
    fn frames(envelope: &Value) -> Vec<Value> {
        let event: Event = serde_json::from_value(envelope.clone()).expect("an event");
        let now = Timestamp::parse(b"2025-11-21T13:00:00.000Z").expect("a time");
        let texts = Wire::plain(Dialect::Listings, false).encode(&event, Some(7), now);
        texts.iter().map(|text| serde_json::from_str(text).expect("JSON")).collect()
    }

    /// "Client → Server" of seed 000, and "От клиента к серверу" of seed 001, which are the same.
    #[test]
    fn the_documents_client_frames() {
        assert_eq!(decode(r#"{"type": "ping"}"#), Ok(Command::Ping { timestamp: None }));
        let typing = Command::Typing { conversation: "123".parse().expect("an id"), is_typing: true };
        assert_eq!(decode(r#"{"type": "typing", "chat_id": 123, "is_typing": true}"#), Ok(typing));
        let read = Command::ReadMessage { message: "456".parse().expect("an id") };
        assert_eq!(decode(r#"{"type": "mark_read", "message_id": 456}"#), Ok(read));
    }

    /// "Server → Client" of seed 000: every field with its value.
    #[test]
    fn the_server_frames_of_seed_000() {
        let message = json!({ "id": "789", "conversationId": "3", "seq": 1, "rev": 1, "senderId": "5", "kind": "text",
            "content": "Hello!", "createdAt": "2025-11-21T13:00:00.000Z" });
        let shown = json!({
            "type": "new_message",
            "chat_id": 3,
            "message": {
                "id": 789,
                "chat_id": 3,
                "sender_id": 5,
                "receiver_id": 6,
                "content": "Hello!",
                "created_at": "2025-11-21T13:00:00Z"
            },
            "timestamp": "2025-11-21T13:00:00Z"
        });
        for kind in ["message.new", "message.sent"] {
            let envelope = json!({ "type": kind, "payload": { "message": message, "to": "6" } });
            assert_eq!(frames(&envelope), std::slice::from_ref(&shown), "{kind}");
        }
        let read = json!({ "type": "message.read_update", "payload": { "conversationId": "3", "messageIds": ["456"],
            "readBy": "6", "readAt": "2025-11-21T13:00:00.000Z" } });
        let shown = json!({
            "type": "message_read",
            "chat_id": 3,
            "message_id": 456,
            "read_by": 6,
            "timestamp": "2025-11-21T13:00:00Z"
        });
        assert_eq!(frames(&read), [shown]);
        let connected = json!({ "type": "auth_success", "payload": { "userId": "6", "connectionId": "x-1",
            "connectedAt": "2025-11-21T13:00:00.000Z", "epoch": "e", "seq": 1, "resumed": false,
            "heartbeatSeconds": 25 } });
        let shown = json!({
            "type": "connected",
            "user_id": 6,
            "timestamp": "2025-11-21T13:00:00Z"
        });
        assert_eq!(frames(&connected), [shown]);
        let typing = json!({ "type": "typing", "payload": { "conversationId": "3", "userId": "5", "isTyping": true } });
        let shown = json!({
            "type": "typing",
            "chat_id": 3,
            "user_id": 5,
            "is_typing": true,
            "timestamp": "2025-11-21T13:00:00Z"
        });
        assert_eq!(frames(&typing), [shown]);
    }

    #[test]
    fn a_receipt_is_told_for_its_hundred_newest_messages() {
        let ids: Vec<String> = (1..=150).map(|id| id.to_string()).collect();
        let read = json!({ "type": "message.read_update", "payload": { "conversationId": "c", "messageIds": ids,
            "readBy": "u", "readAt": "2025-11-21T13:00:00.000Z" } });
        let told: Vec<u64> = frames(&read).iter().filter_map(|frame| frame["message_id"].as_u64()).collect();
        assert_eq!(told, (51..=150).collect::<Vec<_>>());
    }

    /// Only the last frame of an event carries its `seq`.
    #[test]
    fn who_resumes_gets_an_event_whole() {
        let read = json!({ "type": "message.read_update", "payload": { "conversationId": "c", "messageIds": ["1", "2"],
            "readBy": "u", "readAt": "2025-11-21T13:00:00.000Z" } });
        let event: Event = serde_json::from_value(read).expect("an event");
        let texts = Wire::plain(Dialect::Listings, true).encode(&event, Some(7), Timestamp::from_unix_ms(0));
        let seqs: Vec<bool> = texts.iter().map(|text| text.ends_with(",\"seq\":7}")).collect();
        assert_eq!(seqs, [false, true]);
    }
}
