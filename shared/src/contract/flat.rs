//! The frames of the flat dialects, as types for the AsyncAPI document, and the table of all dialects' frames. Frames from
//! clients have their types here; frames to clients are the types that the codecs write. The tests hold both against the
//! codecs.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use crate::command::{PASSWORD_BYTES_MAX, TEMP_ID_BYTES_MAX};
use crate::contract::chat::{ClientFrame, Content, text};
use crate::dialect::flat::{Common, INTEGER_ID_MAX, Id};
use crate::dialect::social::{MessageFrame, NotificationFrame};
use crate::dialect::{channels, listings, social};
use crate::id::{GENERATED_ID_MAX, ID_BYTES_MAX};
use crate::{Dialect, Event, MessageData};

/// A schema of a union of frames, or a reference to it.
pub type Union = fn(&mut SchemaGenerator) -> Schema;

/// The schemas of a dialect's frames.
#[derive(Debug, Clone, Copy)]
pub struct Unions {
    /// Those of frames from clients.
    pub incoming: Union,
    /// Those of frames to clients.
    pub outgoing: &'static [Union],
}

/// The schemas of the frames of `dialect`.
#[must_use]
pub fn unions(dialect: Dialect) -> Unions {
    const COMMON: Union = SchemaGenerator::subschema_for::<Common<'_>>;
    match dialect {
        Dialect::Chat => Unions {
            incoming: SchemaGenerator::subschema_for::<ClientFrame>,
            outgoing: &[SchemaGenerator::subschema_for::<Event>],
        },
        Dialect::Listings => Unions {
            incoming: SchemaGenerator::subschema_for::<ListingsClientFrame>,
            outgoing: &[SchemaGenerator::subschema_for::<listings::Frame<'_>>, COMMON],
        },
        Dialect::Social => Unions {
            incoming: SchemaGenerator::subschema_for::<SocialClientFrame>,
            outgoing: &[
                SchemaGenerator::subschema_for::<social::Frame<'_>>,
                SchemaGenerator::subschema_for::<SocialMessage<'_>>,
                COMMON,
            ],
        },
        Dialect::Channels => Unions {
            incoming: SchemaGenerator::subschema_for::<ChannelsClientFrame>,
            outgoing: &[SchemaGenerator::subschema_for::<channels::Frame<'_>>, COMMON],
        },
    }
}

/// An id from a client: a string, or an integer that stands for the string of its digits.
#[derive(Debug, Clone)]
pub struct AnyId(pub String);

impl Serialize for AnyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Id(&self.0).serialize(serializer)
    }
}

impl JsonSchema for AnyId {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AnyId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"], "minLength": 1, "maxLength": ID_BYTES_MAX,
            "pattern": "^[A-Za-z0-9_.:@|+-]+$", "minimum": 0, "maximum": INTEGER_ID_MAX,
        })
    }
}

/// A generated id, which may come as an integer.
fn generated(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": ["string", "integer", "null"], "pattern": "^[1-9][0-9]{0,15}$", "minimum": 1, "maximum": GENERATED_ID_MAX,
    })
}

fn temp_id(_: &mut SchemaGenerator) -> Schema {
    text(TEMP_ID_BYTES_MAX)
}

fn password(_: &mut SchemaGenerator) -> Schema {
    text(PASSWORD_BYTES_MAX)
}

/// Without control characters but the ends of lines and tabs.
fn plain_content(generator: &mut SchemaGenerator) -> Schema {
    let content = generator.subschema_for::<Content>();
    json_schema!({ "allOf": [content], "pattern": r"^[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]*$" })
}

/// A frame from a client of `listings.v1`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(missing_docs, reason = "this type is the contract; /asyncapi.json shows its fields")]
pub enum ListingsClientFrame {
    Ping {},
    Typing {
        chat_id: AnyId,
        is_typing: bool,
    },
    /// Up to a message, or everything in a chat.
    #[schemars(extend("anyOf" = [{ "required": ["message_id"] }, { "required": ["chat_id"] }]))]
    MarkRead {
        #[schemars(schema_with = "generated", default)]
        #[serde(skip_serializing_if = "Option::is_none")]
        message_id: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        chat_id: Option<AnyId>,
    },
    /// Into a chat, or to a user.
    #[schemars(extend("oneOf" = [{ "required": ["chat_id"] }, { "required": ["receiver_id"] }]))]
    SendMessage {
        #[serde(skip_serializing_if = "Option::is_none")]
        chat_id: Option<AnyId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        receiver_id: Option<AnyId>,
        content: Content,
        #[schemars(schema_with = "temp_id", default)]
        #[serde(skip_serializing_if = "Option::is_none")]
        temp_id: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<MessageData>,
    },
}

/// A frame from a client of `social.v1`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(missing_docs, reason = "this type is the contract; /asyncapi.json shows its fields")]
pub enum SocialClientFrame {
    Ping {},
    Private {
        to: AnyId,
        content: Content,
        #[schemars(schema_with = "temp_id", default)]
        #[serde(skip_serializing_if = "Option::is_none")]
        temp_id: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<MessageData>,
    },
    Group {
        group_id: AnyId,
        content: Content,
        #[schemars(schema_with = "temp_id", default)]
        #[serde(skip_serializing_if = "Option::is_none")]
        temp_id: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<MessageData>,
    },
    /// For admins.
    Broadcast {
        content: Content,
    },
    JoinRoom {
        room: AnyId,
    },
    LeaveRoom {
        room: AnyId,
    },
}

/// A frame from a client of `channels.v1`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(missing_docs, reason = "this type is the contract; /asyncapi.json shows its fields")]
pub enum ChannelsClientFrame {
    Ping {},
    JoinChannel {
        channel_id: AnyId,
        #[schemars(schema_with = "password", default)]
        password: Option<String>,
    },
    JoinRoom {
        room: AnyId,
        #[schemars(schema_with = "password", default)]
        password: Option<String>,
    },
    LeaveChannel {
        channel_id: AnyId,
    },
    LeaveRoom {
        room: AnyId,
    },
    ChatMessage {
        channel_id: AnyId,
        #[schemars(schema_with = "plain_content")]
        content: Content,
        #[schemars(schema_with = "temp_id", default)]
        #[serde(skip_serializing_if = "Option::is_none")]
        temp_id: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<MessageData>,
    },
    Typing {
        channel_id: AnyId,
        is_typing: bool,
    },
    /// A fresh token, before the old one expires.
    Auth {
        token: String,
    },
}

/// The frames of `social.v1` whose types say themselves what they are.
#[derive(JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the frames' types")]
pub enum SocialMessage<'a> {
    Private(MessageFrame<'a>),
    Group(MessageFrame<'a>),
    Notification(NotificationFrame),
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use schemars::generate::SchemaSettings;
    use serde_json::{Value, json};

    use super::*;
    use crate::dialect::Decoder;
    use crate::{Timestamp, Wire};

    /// The flat dialects, each with the source of its codec.
    const FLAT: [(Dialect, &str); 3] = [
        (Dialect::Listings, include_str!("../dialect/listings.rs")),
        (Dialect::Social, include_str!("../dialect/social.rs")),
        (Dialect::Channels, include_str!("../dialect/channels.rs")),
    ];

    fn id() -> AnyId {
        AnyId("7".into())
    }

    fn x() -> Content {
        Content("x".into())
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn data() -> Option<MessageData> {
        MessageData::parse(r#"{"mentions":["u"]}"#).ok()
    }

    /// One frame of each kind with every field; ids once as an integer, once as a string.
    fn sent(dialect: Dialect) -> Vec<Value> {
        let name = AnyId("a.b".into());
        match dialect {
            Dialect::Chat => json!([]),
            Dialect::Listings => json!([
                ListingsClientFrame::Ping {},
                ListingsClientFrame::Typing { chat_id: name, is_typing: true },
                ListingsClientFrame::MarkRead { message_id: Some(7), chat_id: None },
                ListingsClientFrame::MarkRead { message_id: Some(7), chat_id: Some(id()) },
                ListingsClientFrame::SendMessage {
                    chat_id: Some(id()),
                    receiver_id: None,
                    content: x(),
                    temp_id: some("t"),
                    data: data()
                },
                ListingsClientFrame::SendMessage {
                    chat_id: None,
                    receiver_id: Some(id()),
                    content: x(),
                    temp_id: None,
                    data: None
                },
            ]),
            Dialect::Social => json!([
                SocialClientFrame::Ping {},
                SocialClientFrame::Private { to: id(), content: x(), temp_id: some("t"), data: data() },
                SocialClientFrame::Group { group_id: name, content: x(), temp_id: some("t"), data: data() },
                SocialClientFrame::Broadcast { content: x() },
                SocialClientFrame::JoinRoom { room: id() },
                SocialClientFrame::LeaveRoom { room: id() },
            ]),
            Dialect::Channels => json!([
                ChannelsClientFrame::Ping {},
                ChannelsClientFrame::JoinChannel { channel_id: name, password: some("p") },
                ChannelsClientFrame::JoinRoom { room: id(), password: None },
                ChannelsClientFrame::LeaveChannel { channel_id: id() },
                ChannelsClientFrame::LeaveRoom { room: id() },
                ChannelsClientFrame::ChatMessage { channel_id: id(), content: x(), temp_id: some("t"), data: data() },
                ChannelsClientFrame::Typing { channel_id: id(), is_typing: false },
                ChannelsClientFrame::Auth { token: "t".into() },
            ]),
        }
        .as_array()
        .cloned()
        .unwrap_or_default()
    }

    /// The schemas of a dialect's frames, one for each: those from clients and those to clients.
    fn documented(dialect: Dialect) -> (Vec<Value>, Vec<Value>) {
        let frames = |settings: SchemaSettings, unions: &[Union]| {
            let mut generator = settings.with(|settings| settings.inline_subschemas = true).into_generator();
            let all: Vec<Value> = unions.iter().map(|union| union(&mut generator).to_value()).collect();
            all.iter().flat_map(|union| union["oneOf"].as_array().expect("a union").clone()).collect::<Vec<_>>()
        };
        let Unions { incoming, outgoing } = unions(dialect);
        let settings = SchemaSettings::draft2020_12;
        (frames(settings().for_deserialize(), &[incoming]), frames(settings().for_serialize(), outgoing))
    }

    fn kind(frame: &Value) -> &str {
        frame["type"].as_str().expect("a type")
    }

    fn kind_of(schema: &Value) -> &str {
        schema["properties"]["type"]["const"].as_str().expect("a type")
    }

    /// Whether the value has the schema's type, and every field of an object that stands in the schema.
    fn fits(schema: &Value, value: &Value) -> bool {
        if let Some(constant) = schema.get("const") {
            return constant == value;
        }
        if let Some(parts) = schema.get("anyOf").or(schema.get("oneOf")).and_then(Value::as_array)
            && schema.get("properties").is_none()
        {
            return parts.iter().any(|part| fits(part, value));
        }
        let types: Vec<&str> = match &schema["type"] {
            Value::String(one) => vec![one],
            Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
            _ => return true,
        };
        let is = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        types.contains(&is)
            && match value {
                Value::Array(items) => items.iter().all(|item| fits(&schema["items"], item)),
                Value::Object(fields) => {
                    let required = schema["required"].as_array().cloned().unwrap_or_default();
                    let open = schema["additionalProperties"] == true;
                    required.iter().all(|name| fields.contains_key(name.as_str().expect("a name")))
                        && fields.iter().all(|(name, field)| match schema["properties"].get(name) {
                            Some(schema) => fits(schema, field),
                            None => open,
                        })
                }
                _ => true,
            }
    }

    /// The types that a codec's `decode` names.
    fn decoded(source: &str) -> BTreeSet<&str> {
        let body =
            source.split("pub(crate) fn decode(").nth(1).and_then(|rest| rest.split("_ => Err(unknown_type())").next());
        let arms =
            body.expect("a decoder").lines().filter_map(|line| line.trim().strip_prefix('"')?.split_once("\" =>"));
        arms.map(|(kind, _)| kind).collect()
    }

    #[test]
    fn the_decoders_take_every_frame_of_the_document_and_know_no_other() {
        for (dialect, source) in FLAT {
            let (incoming, _) = documented(dialect);
            let frames = sent(dialect);
            for frame in &frames {
                let read = Decoder::new(100).decode_as(dialect, &mut frame.to_string().into_bytes()).command;
                assert!(read.is_ok(), "{frame}: {read:?}");
                let schema = incoming.iter().find(|schema| kind_of(schema) == kind(frame)).expect("a schema");
                assert!(fits(schema, frame), "{frame} doesn't fit {schema}");
            }
            let in_document: BTreeSet<&str> = incoming.iter().map(kind_of).collect();
            assert_eq!(in_document, frames.iter().map(kind).collect(), "{dialect:?}");
            assert_eq!(in_document, decoded(source), "{dialect:?}");
            // Fields that the document calls required are required here.
            for frame in &frames {
                let schema = incoming.iter().find(|schema| kind_of(schema) == kind(frame)).expect("a schema");
                for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                    let mut lacking = frame.clone();
                    lacking.as_object_mut().expect("an object").remove(name);
                    let read = Decoder::new(100).decode_as(dialect, &mut lacking.to_string().into_bytes()).command;
                    assert!(read.is_err(), "{dialect:?} {lacking}");
                }
            }
        }
    }

    const AT: &str = "2025-11-21T13:00:00.250Z";

    /// Canonical payloads of every event, with every field and, where a codec looks at it, without.
    fn events() -> Vec<Value> {
        let message = json!({ "id": "7", "conversationId": "c", "seq": 1, "rev": 1, "senderId": "5", "kind": "text",
            "content": "x", "tempId": "t", "data": { "a": 1 }, "createdAt": AT, "deletedAt": AT });
        let conversation = json!({ "id": "c", "kind": "channel", "visibility": "public", "hasPassword": false,
            "createdAt": AT, "lastSeq": 0, "rev": 0, "memberCount": 1,
            "members": [{ "userId": "u", "role": "owner", "readSeq": 0 }] });
        let event = |kind: &str, payload: Value| json!({ "type": kind, "payload": payload });
        let place = json!({ "conversationId": "c", "userId": "u", "username": "Ann" });
        vec![
            event(
                "auth_success",
                json!({ "userId": "6", "connectionId": "x", "connectedAt": AT, "epoch": "e", "seq": 1,
                "resumed": true, "heartbeatSeconds": 25 }),
            ),
            event("auth_failed", json!({ "code": "TOKEN_EXPIRED", "message": "m" })),
            event("pong", json!({ "timestamp": 1, "serverTime": AT })),
            event("message.sent", json!({ "message": message, "to": "6", "tempId": "t" })),
            event("message.sent", json!({ "message": message, "senderName": "Ann" })),
            event("message.new", json!({ "message": message, "to": "6" })),
            event("message.new", json!({ "message": message })),
            event("conversation.updated", json!({ "conversationId": "c" })),
            event("notification.unread", json!({ "conversationId": "c", "unread": 1, "totalUnread": 1 })),
            event(
                "message.read_ack",
                json!({ "conversationId": "c", "markedCount": 1, "readAt": AT, "upToSeq": 3, "lastSeq": 4 }),
            ),
            event(
                "message.read_update",
                json!({ "conversationId": "c", "messageIds": ["1", "2"], "readBy": "u", "readAt": AT }),
            ),
            event(
                "message.delivered_update",
                json!({ "conversationId": "c", "upTo": "1", "userId": "u", "deliveredAt": AT }),
            ),
            event("message.edited", json!({ "message": message })),
            event(
                "message.deleted",
                json!({ "messageId": "1", "conversationId": "c", "seq": 1, "rev": 1, "deletedAt": AT }),
            ),
            event(
                "reaction.updated",
                json!({ "messageId": "1", "conversationId": "c", "userId": "u", "emoji": "x", "added": true,
                "reactions": {}, "seq": 1, "rev": 1 }),
            ),
            event("typing", json!({ "conversationId": "c", "userId": "u", "isTyping": true, "username": "Ann" })),
            event("block.added", json!({ "userId": "u" })),
            event("block.removed", json!({ "userId": "u" })),
            event("conversation.created", json!({ "conversation": conversation })),
            event("conversation.joined", json!({ "conversation": conversation })),
            event("conversation.changed", json!({ "conversation": conversation, "changedBy": "u" })),
            event("conversation.deleted", json!({ "conversationId": "c", "deletedBy": "u", "deletedAt": AT })),
            event("conversation.left", json!({ "conversationId": "c" })),
            event("conversation.position", json!({ "conversationId": "c", "rev": 2, "lastSeq": 1 })),
            event("conversation.resync", json!({ "conversationId": "c", "reason": "trimmed", "rev": 2, "lastSeq": 1 })),
            event("member.joined", place.clone()),
            event("members.changed", json!({ "conversationId": "c", "memberCount": 3 })),
            event("member.left", place),
            event("status.bulk", json!({ "users": {} })),
            event("user.online", json!({ "userId": "u", "onlineAt": AT })),
            event("user.offline", json!({ "userId": "u", "lastSeen": AT })),
            event(
                "notification",
                json!({ "subtype": "group_invite", "message": "m", "title": "t", "conversationId": "c",
                "invitedBy": "7", "notificationId": "12", "createdAt": AT }),
            ),
            event("notification", json!({ "group_id": 7, "whatever": [1] })),
            event("broadcast", json!({ "content": "x", "sentAt": AT })),
            event("notification.read", json!({})),
            event("goaway", json!({ "reconnectWindowMs": 1, "reason": "r" })),
            event("position", json!({ "epoch": "e", "seq": 1 })),
            event("resync", json!({ "reason": "epoch", "epoch": "e", "seq": 1 })),
            event(
                "error",
                json!({ "code": "RATE_LIMITED", "message": "m", "retryable": true, "retryAfterMs": 1, "field": "f" }),
            ),
        ]
    }

    #[test]
    fn every_frame_that_a_codec_writes_is_in_the_document_and_no_other() {
        let events = events();
        let union = schemars::schema_for!(Event).to_value();
        let known: BTreeSet<&str> = union["oneOf"].as_array().expect("a union").iter().map(kind_of).collect();
        assert_eq!(known, events.iter().map(kind).collect(), "a sample of each event");
        assert_eq!(known, Event::NAMES.into(), "a name of each event");
        for (dialect, _) in FLAT {
            let (_, outgoing) = documented(dialect);
            let mut written = BTreeSet::new();
            for (event, seq) in events.iter().zip(1..) {
                // Events are read with their type in front.
                let text = format!(r#"{{"type":{},"payload":{}}}"#, event["type"], event["payload"]);
                let read: Event = serde_json::from_str(&text).expect("an event");
                assert_eq!(read.name(), kind(event));
                for numbered in [false, true] {
                    for text in Wire::plain(dialect, numbered).encode(&read, Some(seq), Timestamp::from_unix_ms(0)) {
                        let mut frame: Value = serde_json::from_str(&text).expect("JSON");
                        let kind = kind(&frame).to_owned();
                        let schema = outgoing.iter().find(|schema| kind_of(schema) == kind);
                        let schema = schema.unwrap_or_else(|| panic!("{dialect:?} has {frame} beside its document"));
                        // What tells a position is added to every frame alike.
                        let fields = frame.as_object_mut().expect("an object");
                        fields.remove("seq");
                        if kind == "connected" {
                            fields.retain(|name, _| name != "epoch" && name != "resumed");
                        }
                        written.extend(fields.keys().map(|field| (kind.clone(), field.clone())));
                        assert!(fits(schema, &frame), "{dialect:?}: {frame} doesn't fit {schema}");
                    }
                }
            }
            let fields = |schema: &Value| {
                let names = schema["properties"].as_object().expect("fields").keys();
                names.map(|field| (kind_of(schema).to_owned(), field.clone())).collect::<Vec<_>>()
            };
            let in_document: BTreeSet<_> = outgoing.iter().flat_map(fields).collect();
            let never: Vec<_> = in_document
                .difference(&written)
                .filter(|(kind, field)| {
                    // One type serves both.
                    !matches!((kind.as_str(), field.as_str()), ("private", "group_id") | ("group", "to"))
                })
                .collect();
            assert!(never.is_empty(), "{dialect:?} never writes {never:?}");
        }
    }
}
