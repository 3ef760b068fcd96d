//! Long polling, for clients that can't hold a socket: the same log and the same events, on any node.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use shared::command::Resume;
use shared::event::ResyncReason;
use shared::{CloseCode, Epoch, ErrorCode, Places, ProtocolError};

use super::Api;
use super::body::Params;
use super::caller::Caller;
use super::describe::{Answer, Input, Operation, Schemas};
use super::failure::Failure;
use super::streams::EVENT_STREAM;
use crate::auth::credentials::places_in;
use crate::session::poller::{KnownPlaces, PollOutcome, poll};

/// How long a poll waits unless the caller says otherwise, and at the most.
const WAIT_S_DEFAULT: u64 = 25;
const WAIT_S_MAX: u64 = 30;

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct EventsParams {
    /// The position `epoch:seq` up to which the caller has everything. Without it, the answer is the current position.
    #[schemars(length(max = 128))]
    since: Option<String>,
    /// How many seconds to wait for an event; 25 by default, more than 30 counts as 30.
    #[schemars(range(max = u32::MAX))]
    wait: Option<u32>,
}

/// The places of a query: `at=<id>:<rev>:<seq>` for each large conversation.
pub(super) struct At(Option<Places>);

impl<S: Send + Sync> FromRequestParts<S> for At {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        Ok(Self(parts.uri.query().and_then(places_in)))
    }
}

impl Input for At {
    fn describe(operation: &mut Operation, _: &mut Schemas) {
        let described = "Where the caller is in a large conversation, `id:rev:seq`, once for each; empty if it is in none. \
            A caller that names none is told to fetch whenever its user is in a large conversation.";
        let schema =
            json!({ "type": "array", "items": { "type": "string" }, "maxItems": 100, "description": described });
        operation.parameter("query", "at", false, schema);
    }
}

/// Events after the asked position, in order.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Events {
    epoch: Epoch,
    /// The position after these events.
    seq: u64,
    /// Envelopes as they go over a socket: each event with its `seq`, its companions without behind it.
    #[schemars(with = "Vec<Envelope>")]
    events: Vec<Box<RawValue>>,
    /// Where the caller is in large conversations behind these events, for `at` of the next poll: `[rev, seq]` for each.
    #[serde(skip_serializing_if = "Option::is_none")]
    conversations: Option<KnownPlaces>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Envelope {
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    /// In the place of `seq`, in events of large conversations.
    #[serde(skip_serializing_if = "Option::is_none")]
    rev: Option<u64>,
    #[serde(rename = "type")]
    kind: String,
    payload: serde_json::Map<String, serde_json::Value>,
}

/// The asked position can't be served: fetch what is missing, then go on from this one.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ResyncAnswer {
    error: ProtocolError,
    reason: ResyncReason,
    epoch: Epoch,
    seq: u64,
}

/// The answer to a poll.
pub(super) enum PollAnswer {
    Events(Events),
    Moved(ResyncAnswer),
}

impl IntoResponse for PollAnswer {
    fn into_response(self) -> Response {
        match self {
            Self::Events(events) => Json(events).into_response(),
            Self::Moved(moved) => (StatusCode::CONFLICT, Json(moved)).into_response(),
        }
    }
}

impl Answer for PollAnswer {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        let described = "The events; none if the time was up. With `Accept: text/event-stream` a stream: `event` is the type, \
             `data` the envelope, `id` the position, which `Last-Event-ID` goes on at.";
        operation.answers(200, described, Some(schemas.answer::<Events>()));
        operation.answers_also_in(200, EVENT_STREAM);
        operation.answers(409, "The position can't be served.", Some(schemas.answer::<ResyncAnswer>()));
    }
}

pub(super) async fn events(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Params(params): Params<EventsParams>,
    At(places): At,
) -> Result<PollAnswer, Failure> {
    let user = caller.user()?;
    let wait_s = params.wait.map_or(WAIT_S_DEFAULT, u64::from).min(WAIT_S_MAX);
    let since =
        params.since.map(|text| text.parse().map_or(Resume::Invalid, |position| Resume::From(position, places)));
    let wait = Duration::from_secs(wait_s);
    match poll(&api.node, user, caller.identity(), since, wait).await? {
        PollOutcome::Events { epoch, seq, entries, places: conversations } => {
            let lines = entries.iter().flat_map(|payload| payload.split(|byte| *byte == b'\n'));
            let events = lines.map(serde_json::from_slice).collect::<Result<_, _>>().map_err(|fault| {
                tracing::error!(%fault, "a user's log holds an invalid envelope");
                ProtocolError::new(ErrorCode::InternalError, "the log can't be read")
            })?;
            Ok(PollAnswer::Events(Events { epoch, seq, events, conversations }))
        }
        PollOutcome::Moved { reason, position } => Ok(PollAnswer::Moved(ResyncAnswer {
            error: ProtocolError::new(ErrorCode::Conflict, "this position can't be used: fetch the missing messages"),
            reason,
            epoch: position.epoch,
            seq: position.seq,
        })),
        PollOutcome::Ended(CloseCode::TokenExpired) => {
            Err(ProtocolError::new(ErrorCode::TokenExpired, "the token has expired").into())
        }
        PollOutcome::Ended(_) => Err(ProtocolError::new(ErrorCode::Unauthenticated, "the token was revoked").into()),
        PollOutcome::TooMany => {
            let error =
                ProtocolError::new(ErrorCode::RateLimited, "too many polls or sockets of this user are waiting");
            Err(error.retry_after_ms(1000).into())
        }
    }
}
