//! The one shape of an error answer: `{"error": {code, message, field?, retryable, retryAfterMs?}}`.

use axum::Json;
use axum::http::header::{RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use shared::{ErrorCode, ProtocolError};

/// The body of an error answer.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ErrorAnswer {
    error: ProtocolError,
}

/// An error that is answered to a client.
#[derive(Debug)]
pub(super) struct Failure(pub(super) ProtocolError);

impl<E: Into<ProtocolError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        respond(&self.0)
    }
}

/// The answer that carries an error.
pub(in crate::http) fn respond(error: &ProtocolError) -> Response {
    let status = StatusCode::from_u16(error.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    respond_as(status, error)
}

/// The same under a status that no error code has.
pub(in crate::http) fn respond_as(status: StatusCode, error: &ProtocolError) -> Response {
    let nosniff = [(X_CONTENT_TYPE_OPTIONS, "nosniff")];
    let mut response = (status, nosniff, Json(serde_json::json!({ "error": error }))).into_response();
    if let Some(wait_ms) = error.retry_after_ms {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait_ms.div_ceil(1000)));
    }
    response
}

pub(super) async fn no_such_route() -> Failure {
    Failure(ProtocolError::new(ErrorCode::NotFound, "there is no such endpoint"))
}

pub(super) async fn no_such_method() -> Response {
    let error = ProtocolError::new(ErrorCode::NotFound, "this endpoint has no such method");
    (StatusCode::METHOD_NOT_ALLOWED, Json(serde_json::json!({ "error": error }))).into_response()
}
