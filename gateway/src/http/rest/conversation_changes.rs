//! Another title, visibility or password of a conversation, and its end.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use shared::command::PASSWORD_BYTES_MAX;
use shared::title::{TITLE_CHARS_MAX, TITLE_PATTERN, checked_title};
use shared::{Conversation, ConversationId, Visibility};

use super::Api;
use super::body::{Body, Segment};
use super::caller::Caller;
use super::conversations::check_password;
use super::describe::NoContent;
use super::failure::Failure;
use crate::chat::conversation_changes::ChangeConversation;
use crate::limits::charges;
use crate::store::ConversationChange;

/// New values; a field that is absent stays.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ConversationPatch {
    /// `null` removes it.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "Option<String>", length(min = 1, max = TITLE_CHARS_MAX), regex(pattern = TITLE_PATTERN))]
    title: Option<Option<String>>,
    visibility: Option<Visibility>,
    /// At most 128 bytes; `null`: joining takes none.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "Option<String>", length(min = 1, max = PASSWORD_BYTES_MAX))]
    password: Option<Option<String>>,
}

/// Tells `null` from a field that is absent.
fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(value).map(Some)
}

pub(super) async fn change(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(id): Segment<ConversationId>,
    Body(patch): Body<ConversationPatch>,
) -> Result<Json<Conversation>, Failure> {
    let ConversationPatch { title, visibility, password } = patch;
    let title = title.map(|title| title.map(|title| checked_title("title", &title)).transpose()).transpose()?;
    if let Some(Some(password)) = &password {
        check_password(password)?;
    }
    caller.pay(&api, charges::for_changing(matches!(password, Some(Some(_))))).await?;
    let values = ConversationChange { title, visibility, password_hash: None };
    let change = ChangeConversation { values, password };
    let changed = api.node.chat.change_conversation(&id, &caller.giver(), change).await?;
    caller.owe(&api, charges::rest_of_change(usize::try_from(changed.member_count).unwrap_or(usize::MAX)));
    Ok(Json(changed))
}

pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(id): Segment<ConversationId>,
) -> Result<NoContent, Failure> {
    let told = api.node.chat.delete_conversation(&id, &caller.giver()).await?;
    caller.owe(&api, charges::rest_of_change(told));
    Ok(NoContent)
}
