//! Messages: history, sending, reading. Sending runs the same checks and the same path as over the socket.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequest, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::command::check_content;
use shared::command::{SendMessage, TEMP_ID_BYTES_MAX};
use shared::contract::chat::{Content, Emoji, SendBody};
use shared::dialect::Decoder;
use shared::emoji::check_emoji;
use shared::{ConversationId, ErrorCode, Event, Message, MessageId, ProtocolError, Timestamp};

use super::Api;
use super::body::{Body, Params, RawBody, Segment};
use super::caller::Caller;
use super::describe::{Answer, Input, NoContent, Operation, Schemas};
use super::failure::Failure;
use super::pages::{List, limit};
use crate::auth::Identity;
use crate::chat::asking::Via;
use crate::limits::charges;
use crate::store::{MessageChange, Page};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct HistoryParams {
    /// The last ones before this `seq`.
    #[schemars(range(max = u64::MAX))]
    before: Option<u64>,
    /// The first ones after this `seq`.
    #[schemars(range(max = u64::MAX))]
    after: Option<u64>,
    /// Those that changed after this `rev`: the highest contiguous one that the client has, because a change that was
    /// published late may have a lower `rev` than the highest one. Every event that takes a `rev` shows it.
    #[schemars(range(max = u64::MAX))]
    changed_since: Option<u64>,
    /// Those around this message.
    around: Option<MessageId>,
    /// How many; more than 100 counts as 100.
    #[schemars(range(max = u32::MAX))]
    limit: Option<u32>,
}

pub(super) async fn history(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(id): Segment<ConversationId>,
    Params(params): Params<HistoryParams>,
) -> Result<Json<List<Message>>, Failure> {
    let limit = limit(params.limit);
    let page = match (params.before, params.after, params.changed_since, params.around) {
        (None, None, None, None) => Page::Newest,
        (Some(seq), None, None, None) => Page::Before(seq),
        (None, Some(seq), None, None) => Page::After(seq),
        (None, None, Some(rev), None) => Page::ChangedSince(rev),
        (None, None, None, Some(middle)) => {
            let items = api.node.chat.history_around(&id, caller.acts_for(), middle, limit).await?;
            return Ok(Json(List { items, next: None }));
        }
        _ => {
            let fault = "before, after, changedSince and around can't stand together";
            return Err(ProtocolError::new(ErrorCode::ValidationError, fault).into());
        }
    };
    let items = api.node.chat.history(&id, caller.acts_for(), page, limit).await?;
    let full = items.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
    let edge = match page {
        Page::Newest | Page::Before(_) => items.first().map(|message| message.seq),
        Page::After(_) => items.last().map(|message| message.seq),
        Page::ChangedSince(_) => items.last().map(|message| message.rev),
    };
    Ok(Json(List { next: edge.filter(|_| full).map(|edge| edge.to_string()), items }))
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct SentAnswer {
    message: Message,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
}

impl IntoResponse for SentAnswer {
    fn into_response(self) -> Response {
        let status = if self.duplicate { StatusCode::OK } else { StatusCode::CREATED };
        (status, Json(self)).into_response()
    }
}

impl Answer for SentAnswer {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        let schema = schemas.answer::<Self>();
        operation.answers(200, "An earlier try had stored it.", Some(schema.clone()));
        operation.answers(201, "Stored.", Some(schema));
    }
}

/// Printable ASCII; blanks at the ends are no part of a header's value.
const KEY_PATTERN: &str = "^[!-~]([ -~]*[!-~])?$";

/// The body of `message.send`, read by the decoder of the socket; the header `Idempotency-Key` is its `tempId`.
pub(super) struct SendRequest(SendMessage);

impl FromRequest<Arc<Api>> for SendRequest {
    type Rejection = Failure;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, Failure> {
        let key = request.headers().get("idempotency-key").cloned();
        let RawBody(body) = RawBody::from_request(request, api).await?;
        let mut send = Decoder::new(api.node.limits.content_chars_max).decode_send(&mut body.to_vec())?;
        if let Some(key) = key {
            let is_good = |key: &&str| (1..=TEMP_ID_BYTES_MAX).contains(&key.len()) && !key.contains('\t');
            let key = key.to_str().ok().filter(is_good);
            let fault = "must have 1 to 128 printable ASCII characters";
            let key = key.ok_or_else(|| ProtocolError::field("Idempotency-Key", fault))?;
            send.temp_id = Some(key.into());
        }
        Ok(Self(send))
    }
}

impl Input for SendRequest {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        let key = json!({ "type": "string", "minLength": 1, "maxLength": TEMP_ID_BYTES_MAX, "pattern": KEY_PATTERN });
        operation.parameter("header", "Idempotency-Key", false, key);
        let body = schemas.input::<SendBody>();
        operation.body(true, body);
    }
}

fn via(caller: &Caller) -> Via {
    match caller {
        Caller::User(_) => Via::Rest,
        Caller::Backend(_) => Via::Backend,
    }
}

pub(super) async fn send(
    State(api): State<Arc<Api>>,
    caller: Caller,
    SendRequest(send): SendRequest,
) -> Result<SentAnswer, Failure> {
    let sent = api.node.chat.send(caller.user()?, send, via(&caller)).await?;
    if let Some(Identity { user, .. }) = caller.identity() {
        api.node.chat.owe_for_send(user, Some(&sent));
    }
    Ok(SentAnswer { message: sent.message, duplicate: sent.duplicate })
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewContent {
    #[schemars(with = "Content")]
    content: String,
}

pub(super) async fn edit(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(id): Segment<MessageId>,
    Body(NewContent { content }): Body<NewContent>,
) -> Result<Json<Message>, Failure> {
    caller.user()?;
    check_content(&content, api.node.limits.content_chars_max)?;
    let edit = MessageChange::Edit { content };
    let changed = api.node.chat.change_message(id, &caller.giver(), edit, via(&caller)).await?;
    caller.owe(&api, charges::rest_of_change(changed.member_count));
    Ok(Json(changed.message))
}

pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(id): Segment<MessageId>,
) -> Result<NoContent, Failure> {
    let deleted = api.node.chat.change_message(id, &caller.giver(), MessageChange::Delete, via(&caller)).await?;
    caller.owe(&api, charges::rest_of_change(deleted.member_count));
    Ok(NoContent)
}

pub(super) async fn one(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(id): Segment<MessageId>,
) -> Result<Json<Message>, Failure> {
    Ok(Json(api.node.chat.message(id, caller.acts_for()).await?))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewReaction {
    #[schemars(with = "Emoji")]
    emoji: String,
}

/// A reaction is a user's own: a backend needs one for whom it acts.
async fn react_or_take_back(
    api: &Api,
    caller: &Caller,
    id: MessageId,
    reaction: MessageChange,
) -> Result<Json<Message>, Failure> {
    caller.user()?;
    let changed = api.node.chat.change_message(id, &caller.giver(), reaction, via(caller)).await?;
    caller.owe(api, charges::rest_of_change(changed.member_count));
    Ok(Json(changed.message))
}

pub(super) async fn react(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(id): Segment<MessageId>,
    Body(NewReaction { emoji }): Body<NewReaction>,
) -> Result<Json<Message>, Failure> {
    check_emoji(&emoji)?;
    react_or_take_back(&api, &caller, id, MessageChange::React { emoji, on: true }).await
}

pub(super) async fn take_reaction_back(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment((id, emoji)): Segment<(MessageId, Emoji)>,
) -> Result<Json<Message>, Failure> {
    react_or_take_back(&api, &caller, id, MessageChange::React { emoji: emoji.0, on: false }).await
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct UpTo {
    up_to: Option<MessageId>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReadAnswer {
    conversation_id: ConversationId,
    marked_count: u64,
    read_at: Timestamp,
}

pub(super) async fn read(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(id): Segment<ConversationId>,
    Body(UpTo { up_to }): Body<UpTo>,
) -> Result<Json<ReadAnswer>, Failure> {
    let outcome = api.node.chat.read(caller.user()?, &id, up_to).await?;
    let Event::MessageReadAck { conversation_id, marked_count, read_at, .. } = outcome.ack else {
        return Err(ProtocolError::new(ErrorCode::InternalError, "the receipt has no acknowledgement").into());
    };
    Ok(Json(ReadAnswer { conversation_id, marked_count, read_at }))
}
