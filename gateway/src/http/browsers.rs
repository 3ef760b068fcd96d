//! The rules for browsers: cross-origin requests of allowed origins (CORS), and no change through a cookie that another
//! site's page sent along.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HOST, ORIGIN, TRANSFER_ENCODING, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use shared::{ErrorCode, ProtocolError};

use super::client_address::ClientScheme;
use super::rest::failure::{respond, respond_as};
use crate::config::{Origin, Origins};

/// The headers that a cross-origin request may carry. `X-API-Key` is not for browsers.
const ALLOWED_HEADERS: &str = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, X-Request-Id";
const ALLOWED_METHODS: &str = "GET, HEAD, POST, PATCH, DELETE";
const EXPOSED_HEADERS: &str = "Retry-After, X-Request-Id";
/// How long a browser may keep the answer to a preflight request.
const MAX_AGE_S: &str = "600";

/// Where a request comes from, as a browser's headers tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// It has neither `Origin` nor `Sec-Fetch-Site`: no browser sent it, or an old one for a page of this host.
    NoBrowser,
    /// A page of this host.
    SameHost,
    /// A page of an origin that `ALLOWED_ORIGINS` names.
    Listed,
    /// A page of any other origin.
    Foreign,
}

impl Source {
    /// Of a request with these headers; `scheme` is that of the request, where it is known.
    pub(super) fn of(headers: &HeaderMap, scheme: Option<ClientScheme>, origins: &Origins) -> Self {
        let Some(origin) = headers.get(ORIGIN) else {
            return match headers.get("sec-fetch-site").map(HeaderValue::as_bytes) {
                None => Self::NoBrowser,
                Some(b"same-origin") => Self::SameHost,
                Some(_) => Self::Foreign,
            };
        };
        let Some(origin) = origin.to_str().ok().and_then(Origin::parse) else { return Self::Foreign };
        if origins.list(&origin) {
            return Self::Listed;
        }
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let is_same = host.is_some_and(|host| origin.is_at(host))
            && scheme.is_none_or(|ClientScheme(scheme)| scheme == origin.scheme);
        if is_same { Self::SameHost } else { Self::Foreign }
    }

    /// Whether a page from there may open a socket or read answers.
    pub(super) fn may_connect(self, origins: &Origins) -> bool {
        match self {
            Self::NoBrowser | Self::Listed => true,
            Self::SameHost => origins.is_empty() || origins.allow_any(),
            Self::Foreign => origins.allow_any(),
        }
    }

    /// Whether a cookie counts that such a request carries, where it could change something: a browser sends cookies along
    /// whichever page makes the request.
    pub(super) fn may_use_cookies(self) -> bool {
        match self {
            Self::NoBrowser | Self::SameHost | Self::Listed => true,
            Self::Foreign => false,
        }
    }
}

/// The answer to a request whose cookie doesn't count.
pub(super) fn foreign_cookie() -> ProtocolError {
    ProtocolError::new(
        ErrorCode::Forbidden,
        "a request that a cookie authenticates must come from this host or an origin that ALLOWED_ORIGINS names",
    )
}

/// Answers preflight requests, refuses bodies that are not JSON, and adds what browsers look for in every answer.
pub(super) async fn guard(State(origins): State<Arc<Origins>>, request: Request, next: Next) -> Response {
    let cors = cors_headers(request.headers(), &origins);
    let is_private = request.uri().path().starts_with("/api/");
    let is_preflight =
        request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if is_preflight {
        preflight(cors.is_some())
    } else if has_other_body(request.headers()) {
        let error = ProtocolError::new(ErrorCode::InvalidMessage, "send the body as Content-Type: application/json");
        respond_as(StatusCode::UNSUPPORTED_MEDIA_TYPE, &error)
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if is_private {
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    }
    if !origins.allow_any() {
        headers.append(VARY, HeaderValue::from_static("Origin"));
    }
    headers.extend(cors.unwrap_or_default());
    response
}

/// The headers of an answer to an allowed origin; `None` for other origins, and for requests without one.
fn cors_headers(headers: &HeaderMap, origins: &Origins) -> Option<HeaderMap> {
    let given = headers.get(ORIGIN)?;
    let mut cors = HeaderMap::new();
    let is_listed = given.to_str().ok().and_then(Origin::parse).is_some_and(|origin| origins.list(&origin));
    if is_listed {
        cors.insert(ACCESS_CONTROL_ALLOW_ORIGIN, given.clone());
        cors.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        cors.insert(VARY, HeaderValue::from_static("Origin"));
    } else if origins.allow_any() {
        cors.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    } else {
        return None;
    }
    cors.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED_HEADERS));
    Some(cors)
}

fn preflight(is_allowed: bool) -> Response {
    if !is_allowed {
        let error = ProtocolError::new(ErrorCode::Forbidden, "this origin is not allowed; see ALLOWED_ORIGINS");
        return respond(&error);
    }
    let headers = [
        (ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS),
        (ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS),
        (ACCESS_CONTROL_MAX_AGE, MAX_AGE_S),
    ];
    (StatusCode::NO_CONTENT, headers, Body::empty()).into_response()
}

/// Whether there is a body of another type than JSON. A page of any site can send text or a form without a preflight.
fn has_other_body(headers: &HeaderMap) -> bool {
    let length = headers.get(CONTENT_LENGTH).map(HeaderValue::as_bytes);
    let has_body = headers.contains_key(TRANSFER_ENCODING) || length.is_some_and(|length| length != b"0");
    let is_json = |value: &HeaderValue| {
        let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
        essence.trim().eq_ignore_ascii_case("application/json")
    };
    has_body && !headers.get(CONTENT_TYPE).is_some_and(is_json)
}
