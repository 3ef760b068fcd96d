//! Clients' frames of `chat.v1`, as types for the contract documents (OpenAPI, AsyncAPI). The decoder reads frames by
//! itself and more strictly; tests compare the two.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

use crate::command::{KIND_BYTES_MAX, PASSWORD_BYTES_MAX, PRESENCE_QUERY_USERS_MAX, TEMP_ID_BYTES_MAX};
use crate::emoji::{EMOJI_BYTES_MAX, check_emoji};
use crate::title::{TITLE_CHARS_MAX, TITLE_PATTERN};
use crate::{ConversationId, Epoch, MessageData, MessageId, UserId};

/// The content of a message: a string of 1 to `MAX_CONTENT_CHARS` characters without U+0000. The default stands here; a
/// node writes its own into the documents.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct Content(pub String);

impl JsonSchema for Content {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Content".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "maxLength": 4000, "pattern": r"^[^\u0000]*$" })
    }
}

/// A string of 1 to so many bytes without U+0000, or null, which counts as absent.
pub(crate) fn text(bytes_max: usize) -> Schema {
    json_schema!({
        "type": ["string", "null"], "minLength": 1, "maxLength": bytes_max, "pattern": r"^[^\u0000]*$",
        "description": format!("At most {bytes_max} bytes."),
    })
}

fn temp_id(_: &mut SchemaGenerator) -> Schema {
    text(TEMP_ID_BYTES_MAX)
}

fn kind(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": ["string", "null"], "minLength": 1, "maxLength": KIND_BYTES_MAX, "pattern": "^[a-z0-9_.-]+$",
        "description": "`text`, or a kind that the node's setting MESSAGE_KINDS allows; `system` is for backends.",
    })
}

fn password(_: &mut SchemaGenerator) -> Schema {
    text(PASSWORD_BYTES_MAX)
}

fn username(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": ["string", "null"], "minLength": 1, "maxLength": TITLE_CHARS_MAX, "pattern": TITLE_PATTERN,
    })
}

fn emoji(_: &mut SchemaGenerator) -> Schema {
    // A pattern has no word for "emoji": this one lets other characters beyond ASCII pass.
    json_schema!({
        "type": "string", "minLength": 1, "maxLength": EMOJI_BYTES_MAX,
        "pattern": r"^(:[a-z0-9_+-]{1,32}:|[0-9#*]\ufe0f?\u20e3|[^\u0000-\u00a8]+)$",
        "description": "One grapheme that Unicode calls an emoji, or a name between colons.",
    })
}

/// The emoji of a reaction, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emoji(pub String);

impl<'de> Deserialize<'de> for Emoji {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        check_emoji(&text).map_err(|fault| serde::de::Error::custom(fault.message))?;
        Ok(Self(text))
    }
}

impl JsonSchema for Emoji {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Emoji".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        emoji(generator)
    }
}

fn timestamp(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "number", "null"] })
}

/// The body of `message.send`; one of `conversationId` and `to`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("oneOf" = [
    { "required": ["conversationId"], "properties": { "conversationId": { "type": "string" }, "to": { "type": "null" } } },
    { "required": ["to"], "properties": { "to": { "type": "string" }, "conversationId": { "type": "null" } } },
]))]
#[expect(missing_docs, reason = "this type is the contract; /asyncapi.json shows its fields")]
pub struct SendBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversation_id: Option<ConversationId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<UserId>,
    pub content: Content,
    #[schemars(schema_with = "temp_id", default)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temp_id: Option<String>,
    #[schemars(schema_with = "kind", default)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<MessageId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<MessageData>,
}

/// Where a client was.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ResumeBody {
    /// The epoch of the position.
    pub epoch: Epoch,
    /// The last `seq` that was seen.
    pub seq: u64,
    /// For each large conversation the last `rev` that was seen, and the highest `message.seq`; 100 at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversations: Option<BTreeMap<ConversationId, [u64; 2]>>,
}

/// A frame from a client.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(tag = "type", content = "payload", rename_all_fields = "camelCase")]
#[expect(missing_docs, reason = "this type is the contract; /asyncapi.json shows its fields")]
pub enum ClientFrame {
    #[serde(rename = "auth")]
    Auth { token: String, resume: Option<ResumeBody> },
    #[serde(rename = "ping")]
    Ping {
        #[schemars(schema_with = "timestamp", default)]
        timestamp: Option<String>,
    },
    #[serde(rename = "message.send")]
    MessageSend(SendBody),
    #[serde(rename = "message.read")]
    MessageRead { conversation_id: ConversationId, up_to: Option<MessageId> },
    #[serde(rename = "message.delivered")]
    MessageDelivered { conversation_id: ConversationId, up_to: MessageId },
    #[serde(rename = "message.edit")]
    MessageEdit { message_id: MessageId, content: Content },
    #[serde(rename = "message.delete")]
    MessageDelete { message_id: MessageId },
    #[serde(rename = "reaction.add")]
    ReactionAdd {
        message_id: MessageId,
        #[schemars(schema_with = "emoji")]
        emoji: String,
    },
    #[serde(rename = "reaction.remove")]
    ReactionRemove {
        message_id: MessageId,
        #[schemars(schema_with = "emoji")]
        emoji: String,
    },
    #[serde(rename = "typing")]
    Typing { conversation_id: ConversationId, is_typing: bool },
    /// By id or by user name.
    #[serde(rename = "block.add")]
    BlockAdd {
        user_id: Option<UserId>,
        #[schemars(schema_with = "username", default)]
        username: Option<String>,
    },
    /// By id or by user name.
    #[serde(rename = "block.remove")]
    BlockRemove {
        user_id: Option<UserId>,
        #[schemars(schema_with = "username", default)]
        username: Option<String>,
    },
    #[serde(rename = "conversation.join")]
    ConversationJoin {
        conversation_id: ConversationId,
        #[schemars(schema_with = "password", default)]
        password: Option<String>,
    },
    #[serde(rename = "conversation.leave")]
    ConversationLeave { conversation_id: ConversationId },
    #[serde(rename = "presence.query")]
    PresenceQuery {
        #[schemars(length(max = PRESENCE_QUERY_USERS_MAX))]
        user_ids: Vec<UserId>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Decoder;

    /// One frame of each kind, with every field. The test below fails for a command without one.
    fn samples() -> Vec<ClientFrame> {
        let conversation_id = ConversationId::parse("c").expect("an id");
        let user = UserId::parse("u").expect("an id");
        let message_id = MessageId::new(7).expect("an id");
        let content = Content("x".into());
        let send = SendBody {
            conversation_id: Some(conversation_id.clone()),
            to: None,
            content: content.clone(),
            temp_id: Some("t".into()),
            kind: Some("image".into()),
            reply_to: Some(message_id),
            data: MessageData::parse(r#"{"mentions":["u"]}"#).ok(),
        };
        let epoch = Epoch::parse("e").expect("an epoch");
        let conversations = Some([(conversation_id.clone(), [12, 7])].into());
        let resume = ResumeBody { epoch, seq: 1, conversations };
        vec![
            ClientFrame::Auth { token: "t".into(), resume: Some(resume) },
            ClientFrame::Ping { timestamp: Some("now".into()) },
            ClientFrame::MessageSend(send),
            ClientFrame::MessageRead { conversation_id: conversation_id.clone(), up_to: Some(message_id) },
            ClientFrame::MessageDelivered { conversation_id: conversation_id.clone(), up_to: message_id },
            ClientFrame::MessageEdit { message_id, content },
            ClientFrame::MessageDelete { message_id },
            ClientFrame::ReactionAdd { message_id, emoji: "👍".into() },
            ClientFrame::ReactionRemove { message_id, emoji: "👍".into() },
            ClientFrame::Typing { conversation_id: conversation_id.clone(), is_typing: true },
            ClientFrame::BlockAdd { user_id: Some(user.clone()), username: None },
            ClientFrame::BlockRemove { user_id: None, username: Some("n".into()) },
            ClientFrame::ConversationJoin { conversation_id: conversation_id.clone(), password: Some("p".into()) },
            ClientFrame::ConversationLeave { conversation_id },
            ClientFrame::PresenceQuery { user_ids: vec![user] },
        ]
    }

    #[test]
    fn the_decoder_takes_every_frame_of_the_document_and_knows_no_other() {
        let mut named = std::collections::BTreeSet::new();
        for frame in samples() {
            let text = serde_json::to_string(&frame).expect("a frame serializes");
            let decoded = Decoder::new(100).decode(&mut text.clone().into_bytes());
            let command = decoded.command.unwrap_or_else(|error| panic!("{text}: {error}"));
            assert!(text.contains(&format!(r#""type":"{}""#, command.name())), "{text}");
            named.insert(command.name());
        }
        let schema = schemars::schema_for!(ClientFrame);
        let variants = schema.get("oneOf").and_then(serde_json::Value::as_array).expect("one schema for each frame");
        let in_document: std::collections::BTreeSet<&str> =
            variants.iter().filter_map(|variant| variant["properties"]["type"]["const"].as_str()).collect();
        assert_eq!(in_document, named);
        let known: std::collections::BTreeSet<&str> =
            crate::Command::NAMES.into_iter().filter(|name| *name != "broadcast").collect();
        assert_eq!(known, named);
    }
}
