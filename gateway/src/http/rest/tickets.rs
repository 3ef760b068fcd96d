//! Tickets for sockets, so that no token has to stand in a URL.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use shared::Timestamp;

use super::Api;
use super::caller::{Caller, unavailable};
use super::describe::{Answer, Operation, Schemas};
use super::failure::Failure;
use crate::auth::tickets::{TICKET_S, issue as issue_ticket};
use crate::auth::{Identity, NO_EXPIRY_S, Names};

/// A ticket: good once, for a connection.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct TicketAnswer {
    ticket: String,
    /// The same: the seed documents call it a token.
    token: String,
    /// In seconds.
    expires_in: u32,
}

impl IntoResponse for TicketAnswer {
    fn into_response(self) -> Response {
        ([(CACHE_CONTROL, "no-store")], Json(self)).into_response()
    }
}

impl Answer for TicketAnswer {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        operation.answers(200, "The ticket.", Some(schemas.answer::<Self>()));
    }
}

pub(super) async fn issue(State(api): State<Arc<Api>>, caller: Caller) -> Result<TicketAnswer, Failure> {
    let identity = match caller {
        Caller::User(identity) => identity,
        Caller::Backend(_) => {
            let now_s = Timestamp::now().unix_seconds();
            Identity {
                user: caller.user()?.clone(),
                names: Names::default(),
                admin: false,
                expires_at_s: now_s.saturating_add(NO_EXPIRY_S),
                issued_at_s: Some(now_s),
                session: None,
            }
        }
    };
    let ticket = issue_ticket(&*api.node.backbone, &identity).await.map_err(unavailable)?;
    Ok(TicketAnswer { ticket: ticket.as_str().to_owned(), token: ticket.as_str().to_owned(), expires_in: TICKET_S })
}
