//! Request bodies and queries, checked, with the field at fault in the error.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use shared::dialect::half_of_a_character;
use shared::{ErrorCode, ProtocolError};

use super::failure::Failure;
use crate::http::plain_connections::TooSlow;

/// The largest body, in bytes: a conversation of ten thousand members with the longest ids fits.
const BODY_BYTES_MAX: usize = 2 << 20;

/// A JSON object as body. An empty body counts as `{}`.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let bytes = RawBody::from_request(request, state).await?.0;
        let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        // An array would count as the fields in their order.
        if bytes.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|first| *first == b'[') {
            return Err(ProtocolError::new(ErrorCode::InvalidMessage, "the body is not a JSON object").into());
        }
        let mut json = serde_json::Deserializer::from_slice(bytes);
        let value = serde_path_to_error::deserialize(&mut json).map_err(|error| invalid(bytes, &error))?;
        json.end().map_err(|_| ProtocolError::new(ErrorCode::InvalidMessage, "something follows the JSON value"))?;
        Ok(Self(value))
    }
}

/// A body as it came, within the limit.
pub(super) struct RawBody(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for RawBody {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let fault = |error: axum::Error| {
            let mut causes = std::iter::successors(Some(&error as &dyn std::error::Error), |cause| cause.source());
            match causes.find_map(|cause| cause.downcast_ref::<TooSlow>()) {
                Some(slow) => ProtocolError::new(ErrorCode::Timeout, slow.to_string()),
                None => {
                    let fault = format!("the body is larger than {BODY_BYTES_MAX} bytes");
                    ProtocolError::new(ErrorCode::PayloadTooLarge, fault)
                }
            }
        };
        Ok(Self(axum::body::to_bytes(request.into_body(), BODY_BYTES_MAX).await.map_err(fault)?))
    }
}

/// A query string.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Query(value) = Query::<T>::from_request_parts(parts, state).await.map_err(|rejection| {
            ProtocolError::new(ErrorCode::ValidationError, format!("the query is not valid: {}", rejection.body_text()))
        })?;
        Ok(Self(value))
    }
}

/// A part of the path that must be an id.
pub(super) struct Segment<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Segment<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Path(value) = Path::<T>::from_request_parts(parts, state).await.map_err(|rejection| {
            ProtocolError::new(ErrorCode::ValidationError, format!("the path is not valid: {}", rejection.body_text()))
        })?;
        Ok(Self(value))
    }
}

fn invalid(body: &[u8], error: &serde_path_to_error::Error<serde_json::Error>) -> ProtocolError {
    let fault = error.inner();
    if fault.is_syntax()
        && let Some(half) = half_of_a_character(body)
    {
        return half;
    }
    if fault.is_syntax() || fault.is_eof() {
        return ProtocolError::new(ErrorCode::InvalidMessage, format!("the body is not valid JSON: {fault}"));
    }
    let path = error.path().to_string();
    let mut invalid = ProtocolError::new(ErrorCode::ValidationError, format!("{path}: {fault}"));
    if path != "." {
        invalid.field = Some(path.into());
    }
    invalid
}
