//! Conversations, membership and rights.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::command::PASSWORD_BYTES_MAX;
use shared::title::{TITLE_CHARS_MAX, TITLE_PATTERN, checked_title};
use shared::{Conversation, ConversationId, ConversationKind, ProtocolError, Role, UserId, Visibility};

use super::Api;
use super::body::{Body, Params, Segment};
use super::caller::Caller;
use super::describe::{Answer, Created, NoContent, Operation, Schemas};
use super::failure::Failure;
use super::pages::{List, limit};
use crate::chat::conversations::{CreateConversation, CreatedConversation};
use crate::limits::{BulkWork, charges};
use crate::store::{MEMBERS_MAX, MembersAdded, MembershipChange, WalkPlace};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CreateBody {
    /// Chosen by backends and admins alone, and no number from 2^52 on; generated if absent.
    id: Option<ConversationId>,
    kind: ConversationKind,
    #[schemars(length(min = 1, max = TITLE_CHARS_MAX), regex(pattern = TITLE_PATTERN))]
    title: Option<String>,
    #[serde(default)]
    #[schemars(length(max = MEMBERS_MAX))]
    members: Vec<UserId>,
    visibility: Option<Visibility>,
    /// At most 128 bytes.
    #[schemars(length(min = 1, max = PASSWORD_BYTES_MAX))]
    password: Option<String>,
}

/// The conversation, and who was left out.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct CreateAnswer {
    #[serde(flatten)]
    conversation: Conversation,
    /// The users left out because of a block between them and the one who asks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    blocked: Vec<UserId>,
}

pub(super) async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Body(create): Body<CreateBody>,
) -> Result<Created<CreateAnswer>, Failure> {
    if create.id.is_some()
        && let Err(Failure(error)) = caller.must_be_privileged()
    {
        return Err(ProtocolError { field: Some("id".into()), ..error }.into());
    }
    let title = create.title.map(|title| checked_title("title", &title)).transpose()?;
    create.password.as_deref().map(check_password).transpose()?;
    if create.kind == ConversationKind::Direct && (title.is_some() || create.password.is_some()) {
        return Err(ProtocolError::field("kind", "direct conversations have neither title nor password").into());
    }
    let default = match create.kind {
        ConversationKind::Channel => Visibility::Public,
        ConversationKind::Direct | ConversationKind::Group => Visibility::Private,
    };
    caller.pay(&api, charges::for_making(create.members.len())).await?;
    let _turn = caller.turn(&api, BulkWork::Members(create.members.len())).await?;
    let new = CreateConversation {
        id: create.id,
        kind: create.kind,
        title,
        visibility: create.visibility.unwrap_or(default),
        password: create.password,
        members: create.members,
    };
    let CreatedConversation { conversation, blocked } =
        api.node.chat.create_conversation(caller.acts_for(), new).await?;
    Ok(Created(CreateAnswer { conversation, blocked }))
}

/// Checks a password that a conversation is to have.
pub(super) fn check_password(password: &str) -> Result<(), ProtocolError> {
    if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
        return Err(ProtocolError::field("password", "must have 1 to 128 bytes"));
    }
    Ok(())
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct ListParams {
    /// The `next` of the page before.
    #[schemars(regex(
        pattern = r"^[0-9]{1,14}\.([0-9]{1,14}\.[A-Za-z0-9_.:@!~-]{1,128}|\.[A-Za-z0-9_.:@!~-]{0,128})$"
    ))]
    cursor: Option<String>,
    /// How many; more than 100 counts as 100.
    #[schemars(range(max = u32::MAX))]
    limit: Option<u32>,
}

/// A walk shows everything at least once: newest activity first, then again what became active meanwhile.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Params(params): Params<ListParams>,
) -> Result<Json<List<Conversation>>, Failure> {
    let place = params.cursor.map(|cursor| cursor.parse::<WalkPlace>()).transpose();
    let place = place.map_err(|fault| ProtocolError::field("cursor", fault))?;
    let page = api.node.store.conversations(caller.user()?, place.as_ref(), limit(params.limit)).await?;
    Ok(Json(List { items: page.items, next: page.next.map(|place| place.to_string()) }))
}

pub(super) async fn one(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(id): Segment<ConversationId>,
) -> Result<Json<Conversation>, Failure> {
    Ok(Json(api.node.store.conversation(&id, caller.acts_for()).await?))
}

/// One new member with a role, or many without.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("oneOf" = [
    { "required": ["userId"], "properties": { "userId": { "type": "string" }, "userIds": { "maxItems": 0 } } },
    {
        "required": ["userIds"],
        "properties": { "userId": { "type": "null" }, "role": { "type": "null" }, "userIds": { "minItems": 1 } },
    },
]))]
pub(super) struct NewMembers {
    user_id: Option<UserId>,
    role: Option<Role>,
    #[serde(default)]
    #[schemars(length(max = MEMBERS_MAX))]
    user_ids: Vec<UserId>,
}

/// The result of adding many: the new members, the banned ones, and those left out because of a block.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct BulkAddition {
    added: Vec<UserId>,
    banned: Vec<UserId>,
    blocked: Vec<UserId>,
    member_count: u64,
}

/// The conversation with its new member, or what adding many did.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum AddAnswer {
    One(Box<Conversation>),
    Many(BulkAddition),
}

impl IntoResponse for AddAnswer {
    fn into_response(self) -> Response {
        Json(self).into_response()
    }
}

impl Answer for AddAnswer {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        operation.answers(200, "The conversation, or the result of adding many.", Some(schemas.answer::<Self>()));
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct UserBody {
    pub(super) user_id: UserId,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewRole {
    role: Role,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Password {
    /// At most 128 bytes.
    #[schemars(length(max = PASSWORD_BYTES_MAX))]
    password: Option<String>,
}

pub(super) async fn add(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(id): Segment<ConversationId>,
    Body(new): Body<NewMembers>,
) -> Result<AddAnswer, Failure> {
    let by = caller.acts_for();
    match (new.user_id, new.role, new.user_ids) {
        (Some(user), role, users) if users.is_empty() => {
            let added = MembershipChange::Add { by: by.cloned(), role: role.unwrap_or(Role::Member) };
            Ok(AddAnswer::One(Box::new(change(&api, &caller, &id, &user, added).await?)))
        }
        (None, None, users) if !users.is_empty() => {
            if users.len() > MEMBERS_MAX {
                return Err(ProtocolError::field("userIds", "holds more than 10000 ids").into());
            }
            caller.pay(&api, charges::for_adding(users.len())).await?;
            let _turn = caller.turn(&api, BulkWork::Members(users.len())).await?;
            let outcome = api.node.chat.add_members(&id, users, &caller.giver()).await?;
            let MembersAdded { added, banned, blocked, conversation, members: _ } = outcome;
            let member_count = conversation.member_count;
            Ok(AddAnswer::Many(BulkAddition { added, banned, blocked, member_count }))
        }
        _ => Err(ProtocolError::field("userId", "is required, or userIds without role").into()),
    }
}

pub(super) async fn set_role(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment((id, user)): Segment<(ConversationId, UserId)>,
    Body(NewRole { role }): Body<NewRole>,
) -> Result<Json<Conversation>, Failure> {
    change(&api, &caller, &id, &user, MembershipChange::SetRole { by: caller.acts_for().cloned(), role })
        .await
        .map(Json)
}

pub(super) async fn kick(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment((id, user)): Segment<(ConversationId, UserId)>,
) -> Result<NoContent, Failure> {
    change(&api, &caller, &id, &user, MembershipChange::Kick { by: caller.acts_for().cloned() }).await?;
    Ok(NoContent)
}

pub(super) async fn ban(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(id): Segment<ConversationId>,
    Body(who): Body<UserBody>,
) -> Result<NoContent, Failure> {
    change(&api, &caller, &id, &who.user_id, MembershipChange::Ban { by: caller.acts_for().cloned() }).await?;
    Ok(NoContent)
}

pub(super) async fn unban(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment((id, user)): Segment<(ConversationId, UserId)>,
) -> Result<NoContent, Failure> {
    change(&api, &caller, &id, &user, MembershipChange::Unban { by: caller.acts_for().cloned() }).await?;
    Ok(NoContent)
}

pub(super) async fn invite(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(id): Segment<ConversationId>,
    Body(who): Body<UserBody>,
) -> Result<NoContent, Failure> {
    caller.pay(&api, charges::MEMBERSHIP).await?;
    change(&api, &caller, &id, &who.user_id, MembershipChange::Invite { by: caller.acts_for().cloned() }).await?;
    Ok(NoContent)
}

pub(super) async fn join(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(id): Segment<ConversationId>,
    Body(Password { password }): Body<Password>,
) -> Result<Json<Conversation>, Failure> {
    if password.as_ref().is_some_and(|word| word.len() > PASSWORD_BYTES_MAX) {
        return Err(ProtocolError::field("password", "is longer than 128 bytes").into());
    }
    caller.pay(&api, charges::for_joining(password.is_some())).await?;
    Ok(Json(api.node.chat.join(caller.user()?, &id, password, &caller.giver()).await?.conversation))
}

pub(super) async fn leave(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(id): Segment<ConversationId>,
) -> Result<NoContent, Failure> {
    caller.pay(&api, charges::MEMBERSHIP).await?;
    change(&api, &caller, &id, caller.user()?, MembershipChange::Leave).await?;
    Ok(NoContent)
}

async fn change(
    api: &Api,
    caller: &Caller,
    id: &ConversationId,
    user: &UserId,
    change: MembershipChange,
) -> Result<Conversation, Failure> {
    Ok(api.node.chat.change_membership(id, user, change, &caller.giver()).await?.conversation)
}
