//! Who is online.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use shared::command::PRESENCE_QUERY_USERS_MAX;
use shared::{Event, ProtocolError, UserId};

use super::Api;
use super::body::Params;
use super::caller::Caller;
use super::failure::Failure;

#[derive(Debug, Deserialize)]
pub(super) struct PresenceParams {
    users: String,
}

pub(super) async fn presence(
    State(api): State<Arc<Api>>,
    _caller: Caller,
    Params(params): Params<PresenceParams>,
) -> Result<Json<serde_json::Value>, Failure> {
    let ids = params.users.split(',').filter(|id| !id.is_empty());
    let users: Vec<UserId> =
        ids.map(UserId::parse).collect::<Result<_, _>>().map_err(|fault| ProtocolError::field("users", fault))?;
    if users.len() > PRESENCE_QUERY_USERS_MAX {
        return Err(ProtocolError::field("users", "holds more than 500 ids").into());
    }
    match api.node.chat.status(&users).await? {
        Event::StatusBulk { users } => Ok(Json(serde_json::json!({ "users": users }))),
        _ => Ok(Json(serde_json::json!({ "users": {} }))),
    }
}
