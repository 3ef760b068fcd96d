//! A ticket for a socket, so that no token has to stand in a URL.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::response::IntoResponse;
use serde::Serialize;
use shared::Timestamp;

use super::Api;
use super::caller::{Caller, unavailable};
use super::failure::Failure;
use crate::auth::tickets::{TICKET_S, issue as issue_ticket};
use crate::auth::{Identity, NO_EXPIRY_S};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Issued<'a> {
    ticket: &'a str,
    /// The same: the seed documents call it a token.
    token: &'a str,
    /// In seconds.
    expires_in: u32,
}

pub(super) async fn issue(State(api): State<Arc<Api>>, caller: Caller) -> Result<impl IntoResponse, Failure> {
    let identity = match caller {
        Caller::User(identity) => identity,
        Caller::Backend(_) => {
            let now_s = Timestamp::now().unix_seconds();
            Identity {
                user: caller.user()?.clone(),
                username: None,
                admin: false,
                expires_at_s: now_s.saturating_add(NO_EXPIRY_S),
                issued_at_s: Some(now_s),
                session: None,
            }
        }
    };
    let ticket = issue_ticket(&**api.node.chat.backbone(), &identity).await.map_err(unavailable)?;
    let issued = Issued { ticket: ticket.as_str(), token: ticket.as_str(), expires_in: TICKET_S };
    Ok(([(CACHE_CONTROL, "no-store")], Json(issued).into_response()))
}
