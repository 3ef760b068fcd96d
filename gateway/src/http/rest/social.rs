//! The endpoints of seed 004: history and notifications by `limit` and `offset`, and invitations to groups. Items look like
//! the frames of `social.v1`; ids in bodies may be integers, as they are there.

use std::str::FromStr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use shared::dialect::flat::INTEGER_ID_MAX;
use shared::dialect::social::{MessageFrame, NotificationFrame};
use shared::id::{GENERATED_ID_MAX, ID_BYTES_MAX};
use shared::title::{TITLE_CHARS_MAX, TITLE_PATTERN, checked_title};
use shared::{ConversationId, ConversationKind, Message, NotificationId, ProtocolError, UserId};

use super::Api;
use super::body::{Body, Params};
use super::caller::Caller;
use super::describe::{Answer, Operation, Schemas};
use super::failure::Failure;
use super::pages::{List, limit};
use crate::limits::charges;
use crate::store::KeptNotification;

/// Notifications that one request marks as read by their ids.
const IDS_MAX: usize = 1000;

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct PrivateParams {
    user: UserId,
    /// How many; more than 100 counts as 100.
    #[schemars(range(max = u32::MAX))]
    limit: Option<u32>,
    /// How many to pass over.
    #[schemars(range(max = u64::MAX))]
    offset: Option<u64>,
}

/// Messages with one user: the last ones before the `offset` newest, ascending.
pub(super) async fn private_messages(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Params(params): Params<PrivateParams>,
) -> Result<Json<List<Value>>, Failure> {
    let (reader, offset, limit) = (caller.user()?, params.offset.unwrap_or(0), limit(params.limit));
    let page = match api.node.chat.direct_of(reader, &params.user).await? {
        Some(conversation) => api.node.chat.page_back(&conversation, reader, offset, limit).await?,
        None => Vec::new(),
    };
    let frame = |message: &Message| {
        let to = if message.sender_id == *reader { &params.user } else { reader };
        json!(MessageFrame::new(message, Some(to)))
    };
    Ok(Json(list(&page, frame, offset, limit)))
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct GroupParams {
    group: ConversationId,
    /// How many; more than 100 counts as 100.
    #[schemars(range(max = u32::MAX))]
    limit: Option<u32>,
    /// How many to pass over.
    #[schemars(range(max = u64::MAX))]
    offset: Option<u64>,
}

/// Messages of a group that the user is a member of, like [`private_messages`].
pub(super) async fn group_messages(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Params(params): Params<GroupParams>,
) -> Result<Json<List<Value>>, Failure> {
    let (offset, limit) = (params.offset.unwrap_or(0), limit(params.limit));
    let reader = caller.user()?;
    if api.node.chat.members_of(&params.group, reader).await?.kind == ConversationKind::Direct {
        return Err(ProtocolError::field("group", "is a direct conversation, not a group").into());
    }
    let page = api.node.chat.page_back(&params.group, reader, offset, limit).await?;
    Ok(Json(list(&page, |message| json!(MessageFrame::new(message, None)), offset, limit)))
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Invite {
    #[serde(deserialize_with = "flat_id")]
    #[schemars(schema_with = "flat_schema")]
    group_id: ConversationId,
    #[serde(deserialize_with = "flat_id")]
    #[schemars(schema_with = "flat_schema")]
    user_id: UserId,
    #[schemars(length(min = 1, max = TITLE_CHARS_MAX), regex(pattern = TITLE_PATTERN))]
    group_name: Option<String>,
}

/// Where an invitation stands.
#[derive(Serialize, JsonSchema)]
pub(super) struct Invitation {
    #[serde(skip)]
    is_new: bool,
    group_id: ConversationId,
    user_id: UserId,
    /// `invited` or `accepted`.
    status: &'static str,
}

impl IntoResponse for Invitation {
    fn into_response(self) -> Response {
        let status = if self.is_new { StatusCode::CREATED } else { StatusCode::OK };
        (status, Json(self)).into_response()
    }
}

impl Answer for Invitation {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        let schema = schemas.answer::<Self>();
        operation.answers(200, "They were invited, or a member, before.", Some(schema.clone()));
        operation.answers(201, "Invited.", Some(schema));
    }
}

/// Invites a user: 201 when that is news, 200 when they were invited or a member before.
pub(super) async fn invite(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Body(invite): Body<Invite>,
) -> Result<Invitation, Failure> {
    let name = invite.group_name.map(|name| checked_title("group_name", &name)).transpose()?;
    caller.pay(&api, charges::MEMBERSHIP).await?;
    let giver = caller.giver();
    let outcome = api.node.chat.invite(&invite.group_id, &invite.user_id, &giver, name).await?;
    let status = if outcome.is_member { "accepted" } else { "invited" };
    Ok(Invitation { is_new: outcome.changed, group_id: invite.group_id, user_id: invite.user_id, status })
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct NotificationsParams {
    /// How many; more than 100 counts as 100.
    #[schemars(range(max = u32::MAX))]
    limit: Option<u32>,
    /// How many to pass over.
    #[schemars(range(max = u64::MAX))]
    offset: Option<u64>,
}

/// The user's notifications, newest first, with whether they were read.
pub(super) async fn notifications(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Params(params): Params<NotificationsParams>,
) -> Result<Json<List<Value>>, Failure> {
    let (offset, limit) = (params.offset.unwrap_or(0), limit(params.limit));
    let page = api.node.chat.notifications(caller.user()?, offset, limit).await?;
    Ok(Json(list(&page, notification, offset, limit)))
}

fn notification(kept: &KeptNotification) -> Value {
    let payload: Value = serde_json::from_str(&kept.payload).unwrap_or_default();
    let frame = NotificationFrame::new(&payload, kept.created_at)
        .with("id", kept.id.get())
        .with("read", kept.read_at.is_some())
        .with("read_at", kept.read_at.map(|at| at.unix_seconds()));
    json!(frame)
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct ReadBody {
    #[serde(default)]
    #[schemars(schema_with = "ids_schema", default)]
    ids: Option<Vec<Flat<NotificationId>>>,
}

/// How many notifications were marked as read.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct MarkedCount {
    marked: u64,
}

/// Marks all notifications as read, or those that the body names.
pub(super) async fn read_notifications(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Body(read): Body<ReadBody>,
) -> Result<Json<MarkedCount>, Failure> {
    if read.ids.as_ref().is_some_and(|ids| ids.len() > IDS_MAX) {
        return Err(ProtocolError::field("ids", "holds more than 1000 ids").into());
    }
    let ids = read.ids.map(|ids| ids.into_iter().map(|Flat(id)| id).collect());
    let marked = api.node.chat.read_notifications(caller.user()?, ids).await?;
    Ok(Json(MarkedCount { marked }))
}

/// A page, and the `offset` of the next one if this one is full.
fn list<T>(page: &[T], item: impl Fn(&T) -> Value, offset: u64, limit: u32) -> List<Value> {
    let full = page.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
    let next = full.then(|| offset.saturating_add(u64::from(limit)).to_string());
    List { items: page.iter().map(item).collect(), next }
}

/// An id that may be written as an integer.
#[derive(Debug)]
struct Flat<T>(T);

impl<'de, T: FromStr<Err: std::fmt::Display>> Deserialize<'de> for Flat<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        flat_id(deserializer).map(Self)
    }
}

/// Generated ids as strings, or as integers.
fn ids_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": ["array", "null"],
        "maxItems": IDS_MAX,
        "items": {
            "type": ["string", "integer"], "pattern": "^([1-9][0-9]{0,14}|[1-8][0-9]{15}|900[0-6][0-9]{12})$",
            "minimum": 1, "maximum": GENERATED_ID_MAX,
        },
    })
}

/// An id as a string, or as an integer.
fn flat_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": ["string", "integer"], "minLength": 1, "maxLength": ID_BYTES_MAX, "pattern": "^[A-Za-z0-9_.:@|+-]+$",
        "minimum": 0, "maximum": INTEGER_ID_MAX,
    })
}

fn flat_id<'de, T: FromStr<Err: std::fmt::Display>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum FlatId {
        Number(u64),
        // JSON doesn't tell 7.0 from 7, and some clients write their integers like that.
        Float(f64),
        Text(String),
    }
    let text = match FlatId::deserialize(deserializer)? {
        FlatId::Number(number) if number <= INTEGER_ID_MAX => number.to_string(),
        FlatId::Float(number) if (0.0..9_007_199_254_740_992.0).contains(&number) && number.fract() == 0.0 => {
            format!("{number:.0}")
        }
        FlatId::Number(_) | FlatId::Float(_) => {
            return Err(serde::de::Error::custom("must be a string unless it is an integer from 0 to 2^53 - 1"));
        }
        FlatId::Text(text) => text,
    };
    text.parse().map_err(serde::de::Error::custom)
}
