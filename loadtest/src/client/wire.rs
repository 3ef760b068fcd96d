//! The frames of `chat.v1` that a client acts on, parsed independently of the server's own types.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use shared::{ConversationId, Epoch};

use crate::rest::MessageView;

/// A server frame.
#[derive(Debug)]
pub struct ServerFrame {
    /// The place in the user's log, on durable frames.
    pub seq: Option<u64>,
    /// The client's `ref`, if the frame answers one.
    pub reference: Option<String>,
    /// The content.
    pub body: Body,
}

/// A server frame, parsed.
#[derive(Debug, PartialEq, Eq)]
pub enum Body {
    /// The connection is authenticated.
    AuthSuccess(AuthSuccess),
    /// It isn't; a close follows.
    AuthFailed,
    /// A message of somebody else.
    New(MessageView),
    /// A message of this user is stored.
    Sent {
        /// The name that the client gave it.
        temp_id: Option<String>,
        /// The stored message.
        message: MessageView,
        /// Whether it had been stored by an earlier send.
        duplicate: bool,
    },
    /// The node goes away soon.
    Goaway {
        /// Within how many milliseconds to connect elsewhere.
        reconnect_window_ms: u64,
    },
    /// Another place in the log, or the place of an event that came directly.
    Position(Place),
    /// The log can't tell what was missed.
    Resync {
        /// Why, in the server's word.
        reason: String,
        /// The new place.
        place: Place,
    },
    /// A command failed.
    Error {
        /// The error code.
        code: String,
        /// Whether it may be repeated.
        retryable: bool,
        /// After how many milliseconds.
        retry_after_ms: Option<u64>,
    },
    /// The unread messages of a conversation.
    Unread(Unread),
    /// The answer to `ping`.
    Pong,
    /// Anything else: durable if the frame has a `seq`, state or ephemeral otherwise.
    Other,
}

/// The payload of `auth_success`, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthSuccess {
    /// The log's epoch.
    pub epoch: Epoch,
    /// The connection's place in the log.
    pub seq: u64,
    /// Whether what was missed follows.
    pub resumed: bool,
    /// How often the server wants a sign of life.
    #[serde(default)]
    pub heartbeat_seconds: Option<u64>,
}

/// The payload of `notification.unread`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unread {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// Its unread messages.
    pub unread: u64,
    /// Those of all conversations together.
    pub total_unread: u64,
}

/// A place in a log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Place {
    /// The epoch.
    pub epoch: Epoch,
    /// The seq.
    pub seq: u64,
}

impl std::fmt::Display for Place {
    /// As a request and an `id` name it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.epoch, self.seq)
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(default)]
    seq: Option<u64>,
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(rename = "ref", default)]
    reference: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct NewPayload {
    message: MessageView,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SentPayload {
    #[serde(default)]
    temp_id: Option<String>,
    message: MessageView,
    #[serde(default)]
    duplicate: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GoawayPayload {
    reconnect_window_ms: u64,
}

#[derive(Deserialize)]
struct ResyncPayload {
    reason: String,
    #[serde(flatten)]
    place: Place,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ErrorPayload {
    code: String,
    #[serde(default)]
    retryable: bool,
    #[serde(default)]
    retry_after_ms: Option<u64>,
}

/// Parses one text frame. Unknown types are [`Body::Other`], as a client must take them.
///
/// # Errors
/// No JSON object with a `type`, or a known type with a payload of another shape.
pub fn parse(text: &[u8]) -> Result<ServerFrame, serde_json::Error> {
    let envelope: Envelope<'_> = serde_json::from_slice(text)?;
    let payload = envelope.payload.map_or("{}", RawValue::get);
    let body = match &*envelope.kind {
        "auth_success" => Body::AuthSuccess(serde_json::from_str(payload)?),
        "auth_failed" => Body::AuthFailed,
        "message.new" => Body::New(serde_json::from_str::<NewPayload>(payload)?.message),
        "message.sent" => {
            let SentPayload { temp_id, message, duplicate } = serde_json::from_str(payload)?;
            Body::Sent { temp_id, message, duplicate }
        }
        "goaway" => {
            Body::Goaway { reconnect_window_ms: serde_json::from_str::<GoawayPayload>(payload)?.reconnect_window_ms }
        }
        "position" => Body::Position(serde_json::from_str(payload)?),
        "resync" => {
            let ResyncPayload { reason, place } = serde_json::from_str(payload)?;
            Body::Resync { reason, place }
        }
        "error" => {
            let ErrorPayload { code, retryable, retry_after_ms } = serde_json::from_str(payload)?;
            Body::Error { code, retryable, retry_after_ms }
        }
        "notification.unread" => Body::Unread(serde_json::from_str(payload)?),
        "pong" => Body::Pong,
        _ => Body::Other,
    };
    let reference = envelope.reference.map(|value| match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    });
    Ok(ServerFrame { seq: envelope.seq, reference, body })
}

/// The code of an `error` frame.
#[must_use]
pub fn error_code(text: &[u8]) -> Option<String> {
    match parse(text).ok()?.body {
        Body::Error { code, .. } => Some(code),
        Body::AuthSuccess(_)
        | Body::AuthFailed
        | Body::New(_)
        | Body::Sent { .. }
        | Body::Goaway { .. }
        | Body::Position(_)
        | Body::Resync { .. }
        | Body::Unread(_)
        | Body::Pong
        | Body::Other => None,
    }
}
