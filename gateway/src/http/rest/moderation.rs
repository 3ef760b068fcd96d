//! Moderation: members who may not write for a time, and all messages of one user removed.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::{ConversationId, ProtocolError, Timestamp, UserId};

use super::Api;
use super::body::{Body, Params, Segment};
use super::caller::Caller;
use super::describe::NoContent;
use super::failure::Failure;
use super::pages::{after, cursor};
use crate::limits::charges;
use crate::store::{AuditOrder, AuthorPlace, Authored};

/// The longest mute, in seconds: a year.
const MUTE_SECONDS_MAX: u32 = 31_536_000;

/// The places of walks over a user's messages.
const PLACE_PATTERN: &str = "^[0-9]{1,15}\\.[A-Za-z0-9_.:@!~-]{1,128}$";

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Mute {
    user_id: UserId,
    /// How long from now. JSON may write a whole number with a fraction of zero.
    #[schemars(with = "u32", range(min = 1, max = MUTE_SECONDS_MAX))]
    until_seconds: f64,
}

pub(super) async fn mute(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(id): Segment<ConversationId>,
    Body(Mute { user_id, until_seconds }): Body<Mute>,
) -> Result<NoContent, Failure> {
    if !(1.0..=f64::from(MUTE_SECONDS_MAX)).contains(&until_seconds) || until_seconds.fract() != 0.0 {
        return Err(ProtocolError::field("untilSeconds", "must be a whole number from 1 to 31536000").into());
    }
    let time = Duration::from_secs_f64(until_seconds);
    api.node.chat.mute(&id, &user_id, &caller.giver(), Some(time)).await?;
    Ok(NoContent)
}

pub(super) async fn unmute(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment((id, user)): Segment<(ConversationId, UserId)>,
) -> Result<NoContent, Failure> {
    api.node.chat.mute(&id, &user, &caller.giver(), None).await?;
    Ok(NoContent)
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RemovalParams {
    /// Only in this conversation.
    conversation_id: Option<ConversationId>,
    /// Only messages from then on.
    since: Option<Timestamp>,
    /// The `next` of the answer before.
    #[schemars(regex(pattern = PLACE_PATTERN))]
    cursor: Option<String>,
}

/// How far it has come: `next` goes into the next request, and is absent when everything is deleted.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct RemovalAnswer {
    /// The messages that this request deleted.
    deleted: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A request takes about a second; the caller repeats it until there is no `next`.
pub(super) async fn remove_messages(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(user): Segment<UserId>,
    Params(params): Params<RemovalParams>,
) -> Result<Json<RemovalAnswer>, Failure> {
    caller.must_be_privileged()?;
    let place = params.cursor.as_deref().map(place).transpose()?;
    caller.pay(&api, charges::REMOVAL).await?;
    let of = Authored { user: user.clone(), conversation: params.conversation_id, since: params.since };
    let removal = api.node.chat.remove_messages(&of, place).await?;
    let order = AuditOrder::DeleteMessages { conversation: of.conversation, since: of.since, deleted: removal.deleted };
    api.node.audit.ordered(Some(&user), order, caller.giver());
    let next = removal.next.map(|place| format!("{}.{}", place.seq, cursor(place.conversation.as_str())));
    Ok(Json(RemovalAnswer { deleted: removal.deleted, next }))
}

fn place(cursor: &str) -> Result<AuthorPlace, ProtocolError> {
    let invalid = || ProtocolError::field("cursor", "is not the next of an answer");
    let (seq, id) = cursor.split_once('.').ok_or_else(invalid)?;
    let is_number = seq.len() <= 15 && seq.bytes().all(|byte| byte.is_ascii_digit());
    let seq = seq.parse().ok().filter(|_| is_number).ok_or_else(invalid)?;
    Ok(AuthorPlace { conversation: after(Some(id))?.ok_or_else(invalid)?, seq })
}
