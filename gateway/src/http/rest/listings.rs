//! Lists that a client asks for after a reload: members, blocks, names, invitations, channels.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::command::{PRESENCE_QUERY_USERS_MAX, UserRef};
use shared::message::{ListedChannel, ListedMember};
use shared::title::TITLE_CHARS_MAX;
use shared::{Conversation, ConversationId, ErrorCode, ProtocolError, UserId};

use super::Api;
use super::body::{Body, Params, Segment};
use super::caller::Caller;
use super::conversations::UserBody;
use super::describe::NoContent;
use super::failure::Failure;
use super::pages::{CURSOR_PATTERN, List, PageParams, after, cursor, limit};
use super::presence::{USERS_PATTERN, users_of};
use crate::store::Names;

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct MembersParams {
    /// The `next` of the page before.
    #[schemars(regex(pattern = CURSOR_PATTERN))]
    cursor: Option<String>,
    /// How many; more than 100 counts as 100.
    #[schemars(range(max = u32::MAX))]
    limit: Option<u32>,
    /// For backends: of each page only those who are connected now, or with `false` those who aren't.
    online: Option<bool>,
}

pub(super) async fn members(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(id): Segment<ConversationId>,
    Params(params): Params<MembersParams>,
) -> Result<Json<List<ListedMember>>, Failure> {
    if params.online.is_some() && !matches!(caller, Caller::Backend(_)) {
        let error = ProtocolError::new(ErrorCode::Forbidden, "only backends ask who of a conversation is online");
        return Err(ProtocolError { field: Some("online".into()), ..error }.into());
    }
    let after = after(params.cursor.as_deref())?;
    let limit = limit(params.limit);
    let chat = &api.node.chat;
    let items = chat.list_members(&id, caller.acts_for(), after.as_ref(), limit).await?;
    let List { items, next } = List::by_id(items, limit, |member| member.user_id.as_str());
    let items = match params.online {
        Some(online) => chat.online_of(items, online).await?,
        None => items,
    };
    Ok(Json(List { items, next }))
}

/// A user who is blocked.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct BlockedUser {
    user_id: UserId,
}

pub(super) async fn blocks(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Params(params): Params<PageParams>,
) -> Result<Json<List<BlockedUser>>, Failure> {
    let after = after(params.cursor.as_deref())?;
    let limit = limit(params.limit);
    let blocked = api.node.chat.blocks(caller.user()?, after.as_ref(), limit).await?;
    let items = blocked.into_iter().map(|user_id| BlockedUser { user_id }).collect();
    Ok(Json(List::by_id(items, limit, |blocked: &BlockedUser| blocked.user_id.as_str())))
}

pub(super) async fn block(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Body(UserBody { user_id }): Body<UserBody>,
) -> Result<NoContent, Failure> {
    api.node.chat.set_block(caller.user()?, UserRef::Id(user_id), true).await?;
    Ok(NoContent)
}

pub(super) async fn unblock(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(user): Segment<UserId>,
) -> Result<NoContent, Failure> {
    api.node.chat.set_block(caller.user()?, UserRef::Id(user), false).await?;
    Ok(NoContent)
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct UsersParams {
    /// User ids, separated by commas; at most 500.
    #[schemars(regex(pattern = USERS_PATTERN))]
    ids: String,
}

/// A user and what they are called.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct NamedUser {
    user_id: UserId,
    /// The name by which others look them up (`block.add {username}`), if they have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    /// The name that they are shown by, if one is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

pub(super) async fn users(
    State(api): State<Arc<Api>>,
    _: Caller,
    Params(params): Params<UsersParams>,
) -> Result<Json<List<NamedUser>>, Failure> {
    let ids = users_of("ids", &params.ids, PRESENCE_QUERY_USERS_MAX)?;
    let names = api.node.chat.names_of(&ids).await?;
    let named = |(user_id, Names { username, shown })| NamedUser { user_id, username, name: shown };
    Ok(Json(List { items: ids.into_iter().zip(names).map(named).collect(), next: None }))
}

pub(super) async fn invites(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Params(params): Params<PageParams>,
) -> Result<Json<List<Conversation>>, Failure> {
    let after = after(params.cursor.as_deref())?;
    let limit = limit(params.limit);
    let items = api.node.chat.invitations(caller.user()?, after.as_ref(), limit).await?;
    Ok(Json(List::by_id(items, limit, |conversation| conversation.id.as_str())))
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct ChannelsParams {
    /// What the title holds, whatever the case of letters.
    #[schemars(length(min = 1, max = TITLE_CHARS_MAX))]
    query: Option<String>,
    /// The `next` of the page before.
    #[schemars(regex(pattern = CURSOR_PATTERN))]
    cursor: Option<String>,
    /// How many; more than 100 counts as 100.
    #[schemars(range(max = u32::MAX))]
    limit: Option<u32>,
}

/// Public channels. A page may be short, or empty, and still have a next one.
pub(super) async fn channels(
    State(api): State<Arc<Api>>,
    _: Caller,
    Params(params): Params<ChannelsParams>,
) -> Result<Json<List<ListedChannel>>, Failure> {
    let is_good = |query: &String| !query.is_empty() && query.chars().count() <= TITLE_CHARS_MAX;
    if !params.query.as_ref().is_none_or(is_good) {
        return Err(ProtocolError::field("query", "must have 1 to 200 characters").into());
    }
    let after = after(params.cursor.as_deref())?;
    let page = api.node.chat.public_channels(params.query.as_deref(), after.as_ref(), limit(params.limit)).await?;
    Ok(Json(List { items: page.items, next: page.next.map(|id| cursor(id.as_str())) }))
}
