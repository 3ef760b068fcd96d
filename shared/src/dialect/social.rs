//! The dialect `social.v1` (seed 004, and the generic socket of seed 002): `private`, `group`, `broadcast` and
//! `notification`, times in Unix seconds. Seed 004 shows no other frame; the others here are ours.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::command::Target;
use crate::dialect::fields::{Fields, unknown_type};
use crate::dialect::flat::{INTEGER_ID_MAX, Id, Texts};
use crate::{Command, Event, Message, MessageData, ProtocolError, TempId, Timestamp, UserId};

/// Members of canonical notifications, and what they are called here.
const RENAMED: [(&str, &str); 3] =
    [("conversationId", "group_id"), ("notificationId", "id"), ("invitedBy", "invited_by")];

/// Reads a frame whose `type` is `kind`.
pub(crate) fn decode(kind: &str, fields: &Fields<'_, '_>, content_chars_max: usize) -> Result<Command, ProtocolError> {
    match kind {
        "ping" => Ok(Command::Ping { timestamp: None }),
        "private" => {
            let target = Target::User(fields.required_flat_id("to")?);
            fields.flat_send(target, content_chars_max).map(Command::Send)
        }
        "group" => {
            let target = Target::Conversation(fields.required_flat_id("group_id")?);
            fields.flat_send(target, content_chars_max).map(Command::Send)
        }
        "broadcast" => Ok(Command::Broadcast { content: fields.content(content_chars_max)? }),
        "join_room" => Ok(Command::Join { conversation: fields.required_flat_id("room")?, password: None }),
        "leave_room" => Ok(Command::Leave { conversation: fields.required_flat_id("room")? }),
        _ => Err(unknown_type()),
    }
}

/// A frame to a client; messages and notifications have types of their own.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schemars(rename = "SocialFrame")]
#[expect(missing_docs, reason = "the fields are those of seed 004, under the same names")]
pub enum Frame<'a> {
    Connected { user_id: Id<'a>, timestamp: i64 },
    Pong { timestamp: i64 },
    Broadcast { content: &'a str, timestamp: i64 },
    JoinedRoom { room: &'a str },
    LeftRoom { room: &'a str },
}

/// A message: a `private` or `group` frame, and an item of a page of history.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct MessageFrame<'a> {
    #[serde(rename = "type")]
    #[schemars(skip)]
    kind: &'static str,
    id: u64,
    from: Id<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Id<'a>>,
    /// A string, also when it is an integer.
    #[serde(skip_serializing_if = "Option::is_none")]
    group_id: Option<&'a str>,
    content: &'a str,
    timestamp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    temp_id: Option<&'a str>,
    /// The application's own, as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a MessageData>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
}

impl<'a> MessageFrame<'a> {
    /// A message; `to` in a direct conversation.
    #[must_use]
    pub fn new(message: &'a Message, to: Option<&'a UserId>) -> Self {
        Self {
            kind: if to.is_some() { "private" } else { "group" },
            id: message.id.get(),
            from: Id(message.sender_id.as_str()),
            to: to.map(|to| Id(to.as_str())),
            group_id: to.is_none().then_some(message.conversation_id.as_str()),
            content: &message.content,
            timestamp: message.created_at.unix_seconds(),
            temp_id: message.temp_id.as_ref().filter(|temp_id| !temp_id.is_generated()).map(TempId::as_str),
            data: message.data.as_ref(),
            deleted: message.deleted_at.is_some(),
        }
    }
}

/// A notification: its `notification` frame, and an item of the list of notifications.
#[derive(Debug, Serialize)]
pub struct NotificationFrame {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

impl JsonSchema for NotificationFrame {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "NotificationFrame".into()
    }

    /// A backend's own members besides.
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let id = generator.subschema_for::<Id<'_>>();
        json_schema!({
            "type": "object", "required": ["timestamp"], "additionalProperties": true,
            "properties": {
                "timestamp": {}, "group_id": id, "id": id, "invited_by": id,
                "subtype": { "type": "string" }, "message": { "type": "string" }, "title": { "type": "string" },
            },
        })
    }
}

impl NotificationFrame {
    /// The notification of this canonical payload. Whatever it holds stays; `group_id`, `id` and `timestamp` are added where
    /// it doesn't have them itself. `sent_at` counts if it doesn't say when it was sent.
    #[must_use]
    pub fn new(payload: &Value, sent_at: Timestamp) -> Self {
        let mut fields = payload.as_object().cloned().unwrap_or_default();
        fields.remove("type");
        let created_at = fields.remove("createdAt").and_then(|at| serde_json::from_value(at).ok());
        for (canonical, name) in RENAMED {
            if !fields.contains_key(name)
                && let Some(Value::String(id)) = fields.remove(canonical)
            {
                fields.insert(name.to_owned(), serde_json::json!(Id(&id)));
            }
        }
        for (_, name) in RENAMED {
            if let Some(id) = fields.get_mut(name)
                && id.as_u64().is_some_and(|number| number > INTEGER_ID_MAX)
            {
                *id = Value::String(id.to_string());
            }
        }
        let timestamp = created_at.unwrap_or(sent_at).unix_seconds();
        fields.entry("timestamp").or_insert_with(|| timestamp.into());
        Self { kind: "notification", fields }
    }

    /// Sets a member.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }
}

/// Writes the frames of an event.
pub(crate) fn encode(event: &Event, now: Timestamp, out: &mut Texts) {
    match event {
        Event::AuthSuccess { user_id, connected_at, .. } => {
            out.push(&Frame::Connected { user_id: Id(user_id.as_str()), timestamp: connected_at.unix_seconds() });
        }
        Event::Pong { server_time, .. } => out.push(&Frame::Pong { timestamp: server_time.unix_seconds() }),
        Event::MessageSent { message, to, .. } | Event::MessageNew { message, to, .. } => {
            out.push(&MessageFrame::new(message, to.as_ref()));
        }
        Event::Broadcast { content, sent_at } => {
            let timestamp = sent_at.unwrap_or(now).unix_seconds();
            out.push(&Frame::Broadcast { content, timestamp });
        }
        Event::Notification(payload) => out.push(&NotificationFrame::new(payload, now)),
        Event::ConversationJoined { conversation } => out.push(&Frame::JoinedRoom { room: conversation.id.as_str() }),
        Event::ConversationLeft { conversation_id } | Event::ConversationDeleted { conversation_id, .. } => {
            out.push(&Frame::LeftRoom { room: conversation_id.as_str() });
        }
        Event::AuthFailed { .. }
        | Event::Error(_)
        | Event::Goaway { .. }
        | Event::Position { .. }
        | Event::Resync { .. } => out.push_common(event),
        Event::ConversationUpdated { .. }
        | Event::NotificationUnread { .. }
        | Event::NotificationRead { .. }
        | Event::MessageReadAck { .. }
        | Event::MessageReadUpdate { .. }
        | Event::MessageDeliveredUpdate { .. }
        | Event::MessageEdited { .. }
        | Event::MessageDeleted { .. }
        | Event::ReactionUpdated { .. }
        | Event::Typing { .. }
        | Event::BlockAdded { .. }
        | Event::BlockRemoved { .. }
        | Event::ConversationCreated { .. }
        | Event::ConversationChanged { .. }
        | Event::ConversationPosition { .. }
        | Event::ConversationResync { .. }
        | Event::MemberJoined { .. }
        | Event::MemberLeft { .. }
        | Event::MembersChanged { .. }
        | Event::StatusBulk { .. }
        | Event::UserOnline { .. }
        | Event::UserOffline { .. } => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dialect::Decoder;
    use crate::{Dialect, ErrorCode, Wire};

    fn decode(frame: &Value) -> Result<Command, ProtocolError> {
        Decoder::new(4000).decode_as(Dialect::Social, &mut frame.to_string().into_bytes()).command
    }

    /// The time at which events are encoded here.
    const NOW_S: i64 = 1_700_000_000;

    fn encode(event: &Value) -> Vec<Value> {
        let event: Event = serde_json::from_value(event.clone()).expect("a canonical event");
        let wire = Wire::plain(Dialect::Social, false);
        let now = Timestamp::from_unix_ms(NOW_S * 1000);
        wire.encode(&event, None, now).iter().map(|text| serde_json::from_str(text).expect("JSON")).collect()
    }

    /// Whether every field that a document's frame shows is there, with the same value.
    fn assert_shows(frame: &Value, shown: &Value) {
        for (name, value) in shown.as_object().expect("an object") {
            assert_eq!(frame.get(name), Some(value), "{name} of {frame}");
        }
    }

    fn message() -> Value {
        json!({
            "id": "77", "conversationId": "456", "seq": 1, "rev": 1, "senderId": "7", "kind": "text",
            "content": "Hello there!", "tempId": "~1", "createdAt": "2022-01-01T00:00:00.250Z",
        })
    }

    #[test]
    fn private_as_the_document_shows_it() {
        let shown = json!({ "type": "private", "to": 123, "content": "Hello there!", "timestamp": 1_640_995_200 });
        let Ok(Command::Send(send)) = decode(&shown) else { panic!("{shown}") };
        assert_eq!(send.target, Target::User("123".parse().expect("an id")));
        assert_eq!((send.content.as_str(), send.temp_id), ("Hello there!", None));
        for kind in ["message.new", "message.sent"] {
            let frames = encode(&json!({ "type": kind, "payload": { "message": message(), "to": "123" } }));
            assert_shows(&frames[0], &shown);
            assert_shows(&frames[0], &json!({ "from": 7, "id": 77 }));
            assert_eq!((frames.len(), frames[0].get("group_id"), frames[0].get("temp_id")), (1, None, None));
        }
    }

    #[test]
    fn group_as_the_document_shows_it() {
        let shown =
            json!({ "type": "group", "group_id": "456", "content": "Hello there!", "timestamp": 1_640_995_200 });
        for group_id in [json!("456"), json!(456)] {
            let frame = json!({ "type": "group", "group_id": group_id, "content": "Hi", "temp_id": "t" });
            let Ok(Command::Send(send)) = decode(&frame) else { panic!("{frame}") };
            assert_eq!(send.target, Target::Conversation("456".parse().expect("an id")));
            assert_eq!(send.temp_id.as_deref(), Some("t"));
        }
        let mut message = message();
        message["tempId"] = json!("mine");
        let frames = encode(&json!({ "type": "message.new", "payload": { "message": message, "senderName": "N" } }));
        assert_shows(&frames[0], &shown);
        assert_shows(&frames[0], &json!({ "from": 7, "id": 77, "temp_id": "mine" }));
        assert_eq!((frames.len(), frames[0].get("to")), (1, None));
    }

    #[test]
    fn broadcast_as_the_document_shows_it() {
        let shown =
            json!({ "type": "broadcast", "content": "System maintenance in 10 minutes", "timestamp": 1_640_995_200 });
        assert_eq!(decode(&shown), Ok(Command::Broadcast { content: "System maintenance in 10 minutes".into() }));
        let payload = json!({ "content": "System maintenance in 10 minutes", "sentAt": "2022-01-01T00:00:00.000Z" });
        assert_eq!(encode(&json!({ "type": "broadcast", "payload": payload })), [shown]);
        let by_a_backend = encode(&json!({ "type": "broadcast", "payload": { "content": "x" } }));
        assert_eq!(by_a_backend, [json!({ "type": "broadcast", "content": "x", "timestamp": NOW_S })]);
    }

    #[test]
    fn notification_as_the_document_shows_it() {
        let shown = json!({
            "type": "notification", "subtype": "group_invite",
            "message": "You were invited to join group 'Developers'", "group_id": 789, "timestamp": 1_640_995_200,
        });
        let invite = json!({
            "subtype": "group_invite", "message": "You were invited to join group 'Developers'", "title": "Developers",
            "conversationId": "789", "invitedBy": "7", "notificationId": "12", "createdAt": "2022-01-01T00:00:00.000Z",
        });
        let frames = encode(&json!({ "type": "notification", "payload": invite }));
        let mut expected = shown.clone();
        let more = json!({ "id": 12, "invited_by": 7, "title": "Developers" });
        expected.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("an object"));
        assert_eq!(frames, [expected]);
        // A backend that speaks the document's own words is passed on word for word.
        let mut payload = shown.clone();
        payload.as_object_mut().expect("an object").remove("type");
        assert_eq!(encode(&json!({ "type": "notification", "payload": payload })), [shown]);
    }

    #[test]
    fn a_group_that_is_no_integer_is_a_string_in_a_notification() {
        let frames = encode(&json!({ "type": "notification", "payload": { "conversationId": "devs" } }));
        assert_eq!(frames, [json!({ "type": "notification", "group_id": "devs", "timestamp": NOW_S })]);
    }

    #[test]
    fn an_id_that_javascript_does_not_hold_is_a_string_in_a_notification() {
        let invite = json!({ "conversationId": "9007199254740993", "invitedBy": "1161888007138312193", "id": 9007199254740991u64 });
        let own_words =
            json!({ "group_id": 9007199254740993u64, "invited_by": 1161888007138312193u64, "id": 9007199254740991u64 });
        for payload in [invite, own_words] {
            let frames = encode(&json!({ "type": "notification", "payload": payload }));
            let shown = json!({ "group_id": "9007199254740993", "invited_by": "1161888007138312193", "id": 9007199254740991u64 });
            assert_shows(&frames[0], &shown);
        }
    }

    #[test]
    fn the_generic_socket_of_seed_002() {
        assert_eq!(decode(&json!({ "type": "ping" })), Ok(Command::Ping { timestamp: None }));
        let room: crate::ConversationId = "lobby".parse().expect("an id");
        let join = Command::Join { conversation: room.clone(), password: None };
        assert_eq!(decode(&json!({ "type": "join_room", "room": "lobby" })), Ok(join));
        let leave = Command::Leave { conversation: room };
        assert_eq!(decode(&json!({ "type": "leave_room", "room": "lobby" })), Ok(leave));
        let left = encode(&json!({ "type": "conversation.left", "payload": { "conversationId": "lobby" } }));
        assert_eq!(left, [json!({ "type": "left_room", "room": "lobby" })]);
    }

    #[test]
    fn each_fault_names_its_field() {
        for (frame, code, field) in [
            (json!({ "type": "private", "content": "x" }), ErrorCode::ValidationError, "to"),
            (json!({ "type": "private", "to": 1.5, "content": "x" }), ErrorCode::ValidationError, "to"),
            (json!({ "type": "private", "to": "a b", "content": "x" }), ErrorCode::ValidationError, "to"),
            (json!({ "type": "private", "to": 1 }), ErrorCode::ValidationError, "content"),
            (json!({ "type": "private", "to": 1, "content": "" }), ErrorCode::ValidationError, "content"),
            (json!({ "type": "private", "to": 1, "content": "\0" }), ErrorCode::ValidationError, "content"),
            (json!({ "type": "group", "content": "x" }), ErrorCode::ValidationError, "group_id"),
            (json!({ "type": "broadcast" }), ErrorCode::ValidationError, "content"),
            (json!({ "type": "leave_room" }), ErrorCode::ValidationError, "room"),
            (json!({ "type": "notification", "message": "x" }), ErrorCode::UnknownEvent, "type"),
        ] {
            let error = decode(&frame).expect_err("a fault");
            assert_eq!((error.code, error.field.as_deref()), (code, Some(field)), "{frame}");
        }
    }
}
