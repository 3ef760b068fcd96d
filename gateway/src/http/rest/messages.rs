//! Messages: history, sending, reading. Sending runs the same checks and the same path as over the socket.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use shared::chat_v1::Decoder;
use shared::command::TEMP_ID_BYTES_MAX;
use shared::{ConversationId, ErrorCode, Event, Message, MessageId, ProtocolError, Timestamp};

use super::Api;
use super::body::{Body, Params, RawBody, Segment};
use super::caller::Caller;
use super::conversations::{List, limit};
use super::failure::Failure;
use crate::store::Page;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HistoryParams {
    before: Option<u64>,
    after: Option<u64>,
    changed_since: Option<u64>,
    limit: Option<u32>,
}

pub(super) async fn history(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(id): Segment<ConversationId>,
    Params(params): Params<HistoryParams>,
) -> Result<Json<List<Message>>, Failure> {
    let page = match (params.before, params.after, params.changed_since) {
        (None, None, None) => Page::Newest,
        (Some(seq), None, None) => Page::Before(seq),
        (None, Some(seq), None) => Page::After(seq),
        (None, None, Some(rev)) => Page::ChangedSince(rev),
        _ => {
            let fault = "before, after and changedSince can't stand together";
            return Err(ProtocolError::new(ErrorCode::ValidationError, fault).into());
        }
    };
    let limit = limit(params.limit);
    let items = api.node.chat.history(&id, caller.acts_for(), page, limit).await?;
    let full = items.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
    let edge = match page {
        Page::Newest | Page::Before(_) => items.first().map(|message| message.seq),
        Page::After(_) => items.last().map(|message| message.seq),
        Page::ChangedSince(_) => items.last().map(|message| message.rev),
    };
    Ok(Json(List { next: edge.filter(|_| full).map(|edge| edge.to_string()), items }))
}

#[derive(Debug, Serialize)]
pub(super) struct SentAnswer {
    message: Message,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
}

pub(super) async fn send(
    State(api): State<Arc<Api>>,
    caller: Caller,
    headers: HeaderMap,
    RawBody(body): RawBody,
) -> Result<(StatusCode, Json<SentAnswer>), Failure> {
    let sender = caller.user()?;
    let mut send = Decoder::new(api.node.limits.content_chars_max).decode_send(&mut body.to_vec())?;
    if let Some(key) = headers.get("idempotency-key") {
        let key = key.to_str().ok().filter(|key| !key.is_empty() && key.len() <= TEMP_ID_BYTES_MAX);
        let key =
            key.ok_or_else(|| ProtocolError::field("Idempotency-Key", "must have 1 to 128 visible characters"))?;
        send.temp_id = Some(key.to_owned());
    }
    let sent = api.node.chat.send(sender, send).await?;
    let status = if sent.duplicate { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(SentAnswer { message: sent.message, duplicate: sent.duplicate })))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct UpTo {
    up_to: Option<MessageId>,
}

#[derive(Debug, Serialize)]
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
    let Event::MessageReadAck { conversation_id, marked_count, read_at } = outcome.ack else {
        return Err(ProtocolError::new(ErrorCode::InternalError, "the receipt has no acknowledgement").into());
    };
    Ok(Json(ReadAnswer { conversation_id, marked_count, read_at }))
}
