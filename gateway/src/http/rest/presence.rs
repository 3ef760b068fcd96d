//! Queries of presence.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::command::PRESENCE_QUERY_USERS_MAX;
use shared::event::UserStatus;
use shared::{Event, ProtocolError, UserId};

use super::Api;
use super::body::Params;
use super::caller::Caller;
use super::failure::Failure;

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct PresenceParams {
    /// User ids, separated by commas; at most 500.
    #[schemars(regex(pattern = "^[A-Za-z0-9_.:@|+-]{1,128}(,[A-Za-z0-9_.:@|+-]{1,128}){0,499}$"))]
    users: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct PresenceAnswer {
    users: BTreeMap<UserId, UserStatus>,
}

pub(super) async fn presence(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Params(params): Params<PresenceParams>,
) -> Result<Json<PresenceAnswer>, Failure> {
    let users: Vec<UserId> = params
        .users
        .split(',')
        .map(UserId::parse)
        .collect::<Result<_, _>>()
        .map_err(|fault| ProtocolError::field("users", fault))?;
    if users.len() > PRESENCE_QUERY_USERS_MAX {
        return Err(ProtocolError::field("users", "holds more than 500 ids").into());
    }
    match api.node.chat.status(caller.acts_for(), &users).await? {
        Event::StatusBulk { users } => Ok(Json(PresenceAnswer { users })),
        _ => Ok(Json(PresenceAnswer { users: BTreeMap::new() })),
    }
}
