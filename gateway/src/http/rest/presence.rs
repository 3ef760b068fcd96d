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

/// User ids, separated by commas.
pub(super) const USERS_PATTERN: &str = "^[A-Za-z0-9_.:@|+-]{1,128}(,[A-Za-z0-9_.:@|+-]{1,128}){0,499}$";

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct PresenceParams {
    /// User ids, separated by commas; at most 500.
    #[schemars(regex(pattern = USERS_PATTERN))]
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
    let users = users_of("users", &params.users, PRESENCE_QUERY_USERS_MAX)?;
    match api.node.chat.status(caller.acts_for(), &users).await? {
        Event::StatusBulk { users } => Ok(Json(PresenceAnswer { users })),
        _ => Ok(Json(PresenceAnswer { users: BTreeMap::new() })),
    }
}

/// The ids in the parameter `field`.
pub(super) fn users_of(field: &'static str, list: &str, most: usize) -> Result<Vec<UserId>, ProtocolError> {
    let users = list.split(',').map(UserId::parse).collect::<Result<Vec<UserId>, _>>();
    let users = users.map_err(|fault| ProtocolError::field(field, fault))?;
    if users.len() > most {
        return Err(ProtocolError::field(field, format_args!("holds more than {most} ids")));
    }
    Ok(users)
}
