//! A user's right to what is kept of them, and to its end. For backends.

use std::io;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body as Stream, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use schemars::JsonSchema;
use serde::Serialize;
use shared::{ErrorCode, ProtocolError, UserId};

use super::Api;
use super::body::Segment;
use super::caller::Caller;
use super::describe::{Answer, Operation, Schemas};
use super::failure::Failure;
use crate::chat::export::ExportPlace;
use crate::store::AuditOrder;

/// JSON, an object in each line.
const JSON_LINES: &str = "application/x-ndjson";

/// Whether everything is erased; if not, the rest follows by itself, and the same request tells again.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ErasureAnswer {
    done: bool,
}

pub(super) async fn erase(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(user): Segment<UserId>,
) -> Result<Json<ErasureAnswer>, Failure> {
    must_be_backend(&caller)?;
    api.node.audit.ordered(Some(&user), AuditOrder::Erase, caller.giver());
    Ok(Json(ErasureAnswer { done: api.node.chat.erase(&user).await? }))
}

/// The lines of an export, as they are read. The last is `{"type": "end"}`; without it the export was cut short.
pub(super) struct Export(Stream);

impl IntoResponse for Export {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, JSON_LINES)], self.0).into_response()
    }
}

impl Answer for Export {
    fn describe(operation: &mut Operation, _: &mut Schemas) {
        operation.answers_in(200, "JSON lines; the last is {\"type\": \"end\"}.", JSON_LINES);
    }
}

pub(super) async fn export(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(user): Segment<UserId>,
) -> Result<Export, Failure> {
    must_be_backend(&caller)?;
    api.node.audit.ordered(Some(&user), AuditOrder::Export, caller.giver());
    // The first lines come with the answer, so that a fault is still told in a status.
    let (first, place) = api.node.chat.export(&user, ExportPlace::User).await?;
    let lines = stream::try_unfold((Some(first), place), move |(first, place)| {
        let (api, user) = (Arc::clone(&api), user.clone());
        async move {
            if let Some(first) = first {
                return Ok(Some((Bytes::from(first), (None, place))));
            }
            let Some(place) = place else { return Ok(None) };
            let more = api.node.chat.export(&user, place).await;
            let (lines, next) = more.map_err(|error| io::Error::other(error.message.into_owned()))?;
            Ok::<_, io::Error>(Some((Bytes::from(lines), (None, next))))
        }
    });
    Ok(Export(Stream::from_stream(lines)))
}

fn must_be_backend(caller: &Caller) -> Result<(), Failure> {
    match caller {
        Caller::Backend(_) => Ok(()),
        Caller::User(_) => Err(Failure(ProtocolError::new(ErrorCode::Forbidden, "this takes the API key"))),
    }
}
