//! The dialect `channels.v1` (seed 003, which shows no frame: these are ours). Ids are strings and times RFC 3339 with
//! milliseconds, as in `chat.v1`; an id may come as an integer. Groups are channels here.

use schemars::JsonSchema;
use serde::Serialize;

use crate::command::{PASSWORD_BYTES_MAX, Target};
use crate::dialect::fields::{Fields, unknown_type};
use crate::dialect::flat::Texts;
use crate::{
    Command, Conversation, ConversationId, ConversationKind, Event, Message, MessageData, ProtocolError, Role,
    Timestamp, UserId,
};

/// Reads a frame whose `type` is `kind`.
pub(crate) fn decode(kind: &str, fields: &Fields<'_, '_>, content_chars_max: usize) -> Result<Command, ProtocolError> {
    match kind {
        "ping" => Ok(Command::Ping { timestamp: None }),
        "join_channel" => join(fields, "channel_id"),
        "join_room" => join(fields, "room"),
        "leave_channel" => Ok(Command::Leave { conversation: fields.required_flat_id("channel_id")? }),
        "leave_room" => Ok(Command::Leave { conversation: fields.required_flat_id("room")? }),
        "chat_message" => {
            let channel = Target::Conversation(fields.required_flat_id("channel_id")?);
            let send = fields.flat_send(channel, content_chars_max)?;
            check_characters(&send.content)?;
            Ok(Command::Send(send))
        }
        "typing" => Ok(Command::Typing {
            conversation: fields.required_flat_id("channel_id")?,
            is_typing: fields.required_bool("is_typing")?,
        }),
        "auth" => Ok(Command::Auth { token: fields.token()?, resume: None }),
        _ => Err(unknown_type()),
    }
}

fn join(fields: &Fields<'_, '_>, channel: &'static str) -> Result<Command, ProtocolError> {
    let password = fields.text("password", PASSWORD_BYTES_MAX)?.map(str::to_owned);
    Ok(Command::Join { conversation: fields.required_flat_id(channel)?, password })
}

/// Control characters don't belong into a chat, but for the ends of lines and tabs.
fn check_characters(content: &str) -> Result<(), ProtocolError> {
    match content.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        Some(found) => {
            Err(ProtocolError::field("content", format_args!("holds the control character U+{:04X}", u32::from(found))))
        }
        None => Ok(()),
    }
}

/// A frame to a client.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schemars(rename = "ChannelsFrame")]
#[expect(missing_docs, reason = "this type is the contract; /asyncapi.json shows its fields")]
pub enum Frame<'a> {
    Connected {
        user_id: &'a UserId,
        timestamp: Timestamp,
    },
    Pong {
        timestamp: Timestamp,
    },
    JoinedChannel {
        channel_id: &'a ConversationId,
        /// The first hundred by id.
        members: Vec<Member<'a>>,
    },
    LeftChannel {
        channel_id: &'a ConversationId,
    },
    UserJoined(About<'a>),
    UserLeft(About<'a>),
    ChatMessage(Body<'a>),
    Typing {
        channel_id: &'a ConversationId,
        user_id: &'a UserId,
        username: &'a str,
        is_typing: bool,
    },
}

/// A member of a channel.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ChannelMember")]
pub struct Member<'a> {
    user_id: &'a UserId,
    role: Role,
}

/// The user who came or went.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct About<'a> {
    channel_id: &'a ConversationId,
    user_id: &'a UserId,
    username: &'a str,
    timestamp: Timestamp,
}

/// A message.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct Body<'a> {
    id: crate::MessageId,
    channel_id: &'a ConversationId,
    user_id: &'a UserId,
    username: &'a str,
    content: &'a str,
    timestamp: Timestamp,
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
            out.push(&Frame::Connected { user_id, timestamp: *connected_at });
        }
        Event::Pong { server_time, .. } => out.push(&Frame::Pong { timestamp: *server_time }),
        Event::MessageNew { message, sender_name, .. } | Event::MessageSent { message, sender_name, .. } => {
            out.push(&chat_message(message, sender_name.as_ref()));
        }
        Event::Typing { conversation_id, user_id, is_typing, username } => out.push(&Frame::Typing {
            channel_id: conversation_id,
            user_id,
            username: name(username.as_ref(), user_id),
            is_typing: *is_typing,
        }),
        Event::ConversationJoined { conversation } => out.push(&joined_channel(conversation)),
        Event::ConversationCreated { conversation } => match conversation.kind {
            ConversationKind::Group | ConversationKind::Channel => out.push(&joined_channel(conversation)),
            ConversationKind::Direct => {}
        },
        Event::ConversationLeft { conversation_id } | Event::ConversationDeleted { conversation_id, .. } => {
            out.push(&Frame::LeftChannel { channel_id: conversation_id });
        }
        Event::MemberJoined { conversation_id, user_id, username, version: _ } => {
            out.push(&Frame::UserJoined(about(conversation_id, user_id, username.as_ref(), now)));
        }
        Event::MemberLeft { conversation_id, user_id, username, version: _ } => {
            out.push(&Frame::UserLeft(about(conversation_id, user_id, username.as_ref(), now)));
        }
        Event::AuthFailed { .. }
        | Event::Error(_)
        | Event::Goaway { .. }
        | Event::Position { .. }
        | Event::Resync { .. } => out.push_common(event),
        Event::ConversationUpdated { .. }
        | Event::ConversationChanged { .. }
        | Event::ConversationPosition { .. }
        | Event::ConversationResync { .. }
        | Event::MembersChanged { .. }
        | Event::NotificationRead { .. }
        | Event::NotificationUnread { .. }
        | Event::MessageReadAck { .. }
        | Event::MessageReadUpdate { .. }
        | Event::MessageDeliveredUpdate { .. }
        | Event::MessageEdited { .. }
        | Event::MessageDeleted { .. }
        | Event::ReactionUpdated { .. }
        | Event::BlockAdded { .. }
        | Event::BlockRemoved { .. }
        | Event::StatusBulk { .. }
        | Event::UserOnline { .. }
        | Event::UserOffline { .. }
        | Event::Notification(_)
        | Event::Broadcast { .. } => {}
    }
}

fn chat_message<'a>(message: &'a Message, sender_name: Option<&'a String>) -> Frame<'a> {
    Frame::ChatMessage(Body {
        id: message.id,
        channel_id: &message.conversation_id,
        user_id: &message.sender_id,
        username: name(sender_name, &message.sender_id),
        content: &message.content,
        timestamp: message.created_at,
        temp_id: message.temp_id.as_deref(),
        data: message.data.as_ref(),
    })
}

fn joined_channel(conversation: &Conversation) -> Frame<'_> {
    let members = conversation.members.iter().map(|member| Member { user_id: &member.user_id, role: member.role });
    Frame::JoinedChannel { channel_id: &conversation.id, members: members.collect() }
}

/// The event has no time of its own: `now` is the time of its delivery.
fn about<'a>(
    channel_id: &'a ConversationId,
    user_id: &'a UserId,
    username: Option<&'a String>,
    now: Timestamp,
) -> About<'a> {
    About { channel_id, user_id, username: name(username, user_id), timestamp: now }
}

/// A user without a name is shown by the id.
fn name<'a>(username: Option<&'a String>, user: &'a UserId) -> &'a str {
    username.map_or(user.as_str(), String::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::dialect::Decoder;
    use crate::{Dialect, ErrorCode, Wire};

    fn decode(frame: &Value) -> Result<Command, ProtocolError> {
        Decoder::new(10).decode_as(Dialect::Channels, &mut frame.to_string().into_bytes()).command
    }

    fn channel(id: &str) -> ConversationId {
        ConversationId::parse(id).expect("an id")
    }

    #[test]
    fn every_command_is_read() {
        let join = |id: &str, password: Option<&str>| Command::Join {
            conversation: channel(id),
            password: password.map(str::to_owned),
        };
        for (frame, command) in [
            (json!({ "type": "ping" }), Command::Ping { timestamp: None }),
            (json!({ "type": "join_channel", "channel_id": "c" }), join("c", None)),
            (json!({ "type": "join_channel", "channel_id": 7, "password": "p" }), join("7", Some("p"))),
            (json!({ "type": "join_room", "room": "c" }), join("c", None)),
            (json!({ "type": "leave_channel", "channel_id": "c" }), Command::Leave { conversation: channel("c") }),
            (json!({ "type": "leave_room", "room": "c" }), Command::Leave { conversation: channel("c") }),
            (
                json!({ "type": "typing", "channel_id": "c", "is_typing": true }),
                Command::Typing { conversation: channel("c"), is_typing: true },
            ),
            (json!({ "type": "auth", "token": "t" }), Command::Auth { token: "t".into(), resume: None }),
        ] {
            assert_eq!(decode(&frame), Ok(command), "{frame}");
        }
        let frame = json!({ "type": "chat_message", "channel_id": "c", "content": "a\tb\r\nc", "temp_id": "t" });
        let Ok(Command::Send(send)) = decode(&frame) else { panic!("{frame}") };
        assert_eq!((send.target, send.content.as_str()), (Target::Conversation(channel("c")), "a\tb\r\nc"));
        assert_eq!(send.temp_id.as_deref(), Some("t"));
    }

    #[test]
    fn every_fault_names_its_field() {
        for (frame, field) in [
            (json!({ "type": "join_channel" }), "channel_id"),
            (json!({ "type": "join_channel", "room": "c" }), "channel_id"),
            (json!({ "type": "join_room", "channel_id": "c" }), "room"),
            (json!({ "type": "join_channel", "channel_id": "c", "password": 7 }), "password"),
            (json!({ "type": "leave_channel", "channel_id": "a b" }), "channel_id"),
            (json!({ "type": "chat_message", "content": "x" }), "channel_id"),
            (json!({ "type": "chat_message", "channel_id": "c" }), "content"),
            (json!({ "type": "chat_message", "channel_id": "c", "content": "" }), "content"),
            (json!({ "type": "chat_message", "channel_id": "c", "content": "12345678901" }), "content"),
            (json!({ "type": "chat_message", "channel_id": "c", "content": "a\u{7}" }), "content"),
            (json!({ "type": "chat_message", "channel_id": "c", "content": "a\u{1b}[31m" }), "content"),
            (json!({ "type": "chat_message", "channel_id": "c", "content": "a\u{85}" }), "content"),
            (json!({ "type": "typing", "channel_id": "c" }), "is_typing"),
            (json!({ "type": "auth" }), "token"),
        ] {
            let error = decode(&frame).expect_err("it is at fault");
            assert_eq!((error.code, error.field.as_deref()), (ErrorCode::ValidationError, Some(field)), "{frame}");
        }
        let unknown = decode(&json!({ "type": "message.send" })).expect_err("of another dialect");
        assert_eq!(unknown.code, ErrorCode::UnknownEvent);
    }

    /// The frames of a canonical event.
    fn encode(kind: &str, payload: &Value) -> Vec<Value> {
        let event = format!(r#"{{"type":"{kind}","payload":{payload}}}"#);
        let event: Event = serde_json::from_str(&event).expect("an event");
        let texts = Wire::plain(Dialect::Channels, false).encode(
            &event,
            Some(5),
            Timestamp::parse(AT.as_bytes()).expect("a time"),
        );
        texts.iter().map(|text| serde_json::from_str(text).expect("JSON")).collect()
    }

    const AT: &str = "2025-11-21T13:00:00.250Z";

    #[test]
    fn golden_frames() {
        let message = json!({
            "id": "7", "conversationId": "c", "seq": 1, "rev": 1, "senderId": "u", "kind": "text", "content": "hi",
            "createdAt": AT,
        });
        let chat_message = json!({
            "type": "chat_message", "id": "7", "channel_id": "c", "user_id": "u", "username": "Ann", "content": "hi",
            "timestamp": AT,
        });
        let conversation = json!({
            "id": "c", "kind": "channel", "visibility": "public", "hasPassword": false, "createdAt": AT, "lastSeq": 0,
            "rev": 0, "memberCount": 2, "members": [
                { "userId": "o", "role": "owner", "readSeq": 0 },
                { "userId": "u", "role": "member", "readSeq": 0 },
            ],
        });
        let joined_channel = json!({
            "type": "joined_channel", "channel_id": "c",
            "members": [{ "user_id": "o", "role": "owner" }, { "user_id": "u", "role": "member" }],
        });
        let mut direct = conversation.clone();
        direct["kind"] = "direct".into();
        for ((kind, payload), frames) in [
            (
                (
                    "auth_success",
                    json!({ "userId": "u", "connectionId": "x", "connectedAt": AT, "epoch": "e.1", "seq": 0,
                        "resumed": false, "heartbeatSeconds": 25 }),
                ),
                vec![json!({ "type": "connected", "user_id": "u", "timestamp": AT })],
            ),
            (("pong", json!({ "timestamp": 1, "serverTime": AT })), vec![json!({ "type": "pong", "timestamp": AT })]),
            (("message.new", json!({ "message": message, "senderName": "Ann" })), vec![chat_message.clone()]),
            (("message.sent", json!({ "message": message, "senderName": "Ann" })), vec![chat_message]),
            (("conversation.joined", json!({ "conversation": conversation })), vec![joined_channel.clone()]),
            (("conversation.created", json!({ "conversation": conversation })), vec![joined_channel]),
            (("conversation.created", json!({ "conversation": direct })), vec![]),
            (
                ("conversation.left", json!({ "conversationId": "c" })),
                vec![json!({ "type": "left_channel", "channel_id": "c" })],
            ),
            (
                ("conversation.deleted", json!({ "conversationId": "c", "deletedAt": AT })),
                vec![json!({ "type": "left_channel", "channel_id": "c" })],
            ),
            (("conversation.changed", json!({ "conversation": conversation })), vec![]),
            (
                ("typing", json!({ "conversationId": "c", "userId": "u", "isTyping": true, "username": "Ann" })),
                vec![
                    json!({ "type": "typing", "channel_id": "c", "user_id": "u", "username": "Ann", "is_typing": true }),
                ],
            ),
            (
                ("error", json!({ "code": "BANNED", "message": "you are banned", "retryable": false })),
                vec![json!({ "type": "error", "code": "BANNED", "message": "you are banned", "retryable": false })],
            ),
            (("user.online", json!({ "userId": "u", "onlineAt": AT })), vec![]),
            (("conversation.updated", json!({ "conversationId": "c" })), vec![]),
        ] {
            assert_eq!(encode(kind, &payload), frames, "{kind}");
        }
    }

    #[test]
    fn who_comes_and_goes_is_named_and_timed() {
        for (kind, frame_kind) in [("member.joined", "user_joined"), ("member.left", "user_left")] {
            for (payload, username) in [
                (json!({ "conversationId": "c", "userId": "u", "username": "Ann" }), "Ann"),
                (json!({ "conversationId": "c", "userId": "u" }), "u"),
            ] {
                let expected = json!({
                    "type": frame_kind, "channel_id": "c", "user_id": "u", "username": username, "timestamp": AT,
                });
                assert_eq!(encode(kind, &payload), [expected]);
            }
        }
    }
}
