//! Events that backends publish: to some users, or to every connected user.

use std::sync::Arc;

use axum::extract::State;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;
use shared::{ConversationId, ProtocolError, UserId};

use super::Api;
use super::body::Body;
use super::caller::Caller;
use super::describe::Accepted;
use super::failure::Failure;
use crate::backbone::late::MESSAGE_LIVE;
use crate::chat::notifications::NotificationPayload;
use crate::limits::BulkWork;
use crate::store::AuditOrder;

/// Users in one call.
const USERS_MAX: usize = 1000;
/// Users that the audit trail names of one call.
const USERS_SHOWN_MAX: usize = 20;
/// The longest event type, in bytes.
const TYPE_BYTES_MAX: usize = 64;
/// The largest payload, in bytes.
const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

/// Types by which clients know their position, and nodes what isn't stored yet. From elsewhere they would send a client to
/// fetch everything, or be dropped.
const TYPES_OF_THE_SERVER: [&str; 8] = [
    MESSAGE_LIVE,
    "auth_success",
    "auth_failed",
    "position",
    "resync",
    "conversation.position",
    "conversation.resync",
    "goaway",
];

/// An event for some users, or for all members of a conversation.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("oneOf" = [
    { "required": ["users"], "properties": { "users": { "type": "array" }, "conversationId": { "type": "null" } } },
    { "required": ["conversationId"], "properties": { "users": { "type": "null" }, "conversationId": { "type": "string" } } },
]))]
pub(super) struct PublishBody {
    #[schemars(length(min = 1, max = USERS_MAX))]
    users: Option<Vec<UserId>>,
    /// In the place of `users`: all members of this conversation.
    conversation_id: Option<ConversationId>,
    event: BackendEvent,
    /// True unless its sender says otherwise. An event to a large conversation is never durable.
    durable: Option<bool>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BroadcastBody {
    event: BackendEvent,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct BackendEvent {
    /// Not one of those by which the server tells a client its position, such as `resync`.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = TYPE_BYTES_MAX), regex(pattern = "^[A-Za-z0-9._-]+$"))]
    kind: String,
    /// An object of at most 64 KiB.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    payload: Box<RawValue>,
}

pub(super) async fn publish(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Body(publish): Body<PublishBody>,
) -> Result<Accepted, Failure> {
    caller.must_be_privileged()?;
    let PublishBody { users, conversation_id, event, durable } = publish;
    let envelope = event.envelope()?;
    let mut users = match (users, conversation_id) {
        (Some(users), None) if !users.is_empty() && users.len() <= USERS_MAX => users,
        (Some(_), None) => return Err(ProtocolError::field("users", "must hold 1 to 1000 ids").into()),
        (None, Some(conversation)) => match api.node.chat.audience(&conversation).await? {
            Some(members) => members,
            None if durable == Some(true) => {
                return Err(ProtocolError::field("durable", "can't be true for a large conversation").into());
            }
            None => {
                let (kind, users) = (event.kind, Vec::new());
                api.node.audit.ordered(None, AuditOrder::Publish { kind, users, count: 0 }, caller.giver());
                api.node.chat.publish_to_all(&conversation, envelope).await?;
                return Ok(Accepted);
            }
        },
        (None, None) | (Some(_), Some(_)) => {
            return Err(ProtocolError::field("users", "or `conversationId` is needed, and only one of them").into());
        }
    };
    let durable = durable.unwrap_or(true);
    let _turn = caller.turn(&api, BulkWork::Recipients(users.len())).await?;
    users.sort();
    users.dedup();
    let (kind, count) = (event.kind.clone(), users.len());
    let shown = users.iter().take(USERS_SHOWN_MAX).cloned().collect();
    let to = if let [user] = &*users { Some(user) } else { None };
    api.node.audit.ordered(to, AuditOrder::Publish { kind, users: shown, count }, caller.giver());
    match event.kept().filter(|_| durable) {
        Some(payload) => api.node.chat.notify(users, payload?).await?,
        None => api.node.chat.publish(users, envelope, durable).await?,
    }
    Ok(Accepted)
}

pub(super) async fn broadcast(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Body(broadcast): Body<BroadcastBody>,
) -> Result<Accepted, Failure> {
    caller.must_be_privileged()?;
    let envelope = broadcast.event.envelope()?;
    let _turn = caller.turn(&api, BulkWork::Broadcast).await?;
    api.node.chat.broadcast(broadcast.event.kind, envelope, caller.giver()).await?;
    Ok(Accepted)
}

impl BackendEvent {
    /// The payload, if the event is a notification: those that are durable are kept.
    fn kept(&self) -> Option<Result<NotificationPayload, ProtocolError>> {
        let parse = |payload: &RawValue| {
            serde_json::from_str(payload.get()).map_err(|_| ProtocolError::field("event.payload", "must be an object"))
        };
        (self.kind == "notification").then(|| parse(&self.payload))
    }

    /// The canonical envelope, in one line.
    fn envelope(&self) -> Result<String, ProtocolError> {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if self.kind.is_empty() || self.kind.len() > TYPE_BYTES_MAX || !self.kind.bytes().all(valid) {
            return Err(ProtocolError::field("event.type", "must have 1 to 64 characters of A-Z a-z 0-9 . _ -"));
        }
        if TYPES_OF_THE_SERVER.contains(&self.kind.as_str()) {
            return Err(ProtocolError::field("event.type", "is one of those that only the server sends"));
        }
        let payload = self.payload.get();
        if !payload.starts_with('{') {
            return Err(ProtocolError::field("event.payload", "must be an object"));
        }
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(ProtocolError::field("event.payload", "is larger than 65536 bytes"));
        }
        // White space between tokens may hold line ends, which separate envelopes on the channel.
        let payload = payload.replace(['\n', '\r'], " ");
        let envelope = format!(r#"{{"type":"{}","payload":{payload}}}"#, self.kind);
        check_readable(&envelope)?;
        Ok(envelope)
    }
}

/// Refuses what usual parsers don't read: it would reach some dialects and clients, and be passed over by others.
fn check_readable(envelope: &str) -> Result<(), ProtocolError> {
    // In the answer to a poll an envelope stands two levels down; one is spare.
    let (open, close) = ("[[[", "]]]");
    match serde_json::from_str::<serde_json::Value>(&format!("{open}{envelope}{close}")) {
        Ok(_) => Ok(()),
        Err(fault) => Err(ProtocolError::field("event.payload", format_args!("can't be passed on: {fault}"))),
    }
}
