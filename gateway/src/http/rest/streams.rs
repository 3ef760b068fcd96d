//! Server-sent events: `GET /api/v1/events` with `Accept: text/event-stream`. A stream passes the same checks as a socket,
//! and counts as one.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, USER_AGENT};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use shared::command::Resume;
use shared::{ErrorCode, Places, ProtocolError};

use super::Api;
use super::caller::{EVENTS_PATH, not_let_in};
use super::failure::{Failure, respond};
use crate::auth::credentials::{places_in, query_value};
use crate::auth::{AuthError, Credential, Identity, TokenRefusal};
use crate::clock::now_us;
use crate::http::admission::believed;
use crate::http::browsers::{Source, foreign_cookie};
use crate::http::client_address::{ClientAddress, ClientScheme, address_key};
use crate::http::listener::Place;
use crate::http::open_stream::OpenStream;
use crate::limits::Stay;
use crate::node::Node;
use crate::session::stream::{EventStream, RETRY_MS, retry_line};

/// What a client accepts that wants one.
pub(super) const EVENT_STREAM: &str = "text/event-stream";

/// What a stream holds besides its place in the registry, given up when dropped.
struct Held {
    node: Arc<Node>,
    number: u64,
    _place: Place,
    _stay: Option<Stay>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.node.metrics.event_streams.decrement(1.0);
        self.node.clients.forget(self.number);
    }
}

/// The body of a stream's answer.
struct StreamBody {
    stream: EventStream,
    _held: Held,
}

impl hyper::body::Body for StreamBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let lines = ready!(self.stream.poll_lines(cx));
        Poll::Ready(lines.map(|lines| Ok(Frame::data(lines))))
    }
}

/// Answers requests for a stream, and passes all others on.
pub(super) async fn divert(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    if !asks_for_stream(&request) {
        return next.run(request).await;
    }
    match open(&api, request).await {
        Ok(response) => response,
        Err(Failure(error)) => refuse(&error),
    }
}

fn asks_for_stream(request: &Request) -> bool {
    let mut accepted = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let is_stream = |media: &str| media.split(';').next().is_some_and(|name| name.trim() == EVENT_STREAM);
    request.method() == Method::GET
        && request.uri().path() == EVENTS_PATH
        && accepted.any(|list| list.split(',').any(is_stream))
}

async fn open(api: &Api, request: Request) -> Result<Response, Failure> {
    let node = &api.node;
    let (place, stay) = enter(api, &request)?;
    // From here on the request itself isn't needed: its body and its extensions are given back.
    let (parts, _) = request.into_parts();
    let identity = identify(api, &parts).await?;
    if let Err(wait_us) = node.connects.take(&identity.user, now_us()) {
        node.metrics.handshake("user_rate");
        let error = ProtocolError::new(ErrorCode::RateLimited, "this user connects too often; wait a little");
        return Err(Failure(error.retry_after_ms(wait_us.div_ceil(1000))));
    }
    let number = node.next_connection();
    let held = Held { node: Arc::clone(node), number, _place: place, _stay: stay };
    node.metrics.event_streams.increment(1.0);
    if let Some(ClientAddress(address)) = parts.extensions.get::<ClientAddress>() {
        node.clients.keep(number, *address, parts.headers.get(USER_AGENT).map(HeaderValue::as_bytes));
    }
    let resume = asked_position(&parts.headers, parts.uri.query());
    let stream = EventStream::open(node, number, identity, resume).await?;
    let open = OpenStream(Arc::clone(stream.queue()));
    let mut response = (stream_headers(), Body::new(StreamBody { stream, _held: held })).into_response();
    // A stream ends with its connection, which has left the places of plain ones.
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response.extensions_mut().insert(open);
    Ok(response)
}

/// Takes the places that a connection needs.
fn enter(api: &Api, request: &Request) -> Result<(Place, Option<Stay>), Failure> {
    let metrics = &api.node.metrics;
    let client = request.extensions().get::<ClientAddress>();
    let stay = client.map(|ClientAddress(address)| api.addresses.enter(*address)).transpose().map_err(|over| {
        metrics.handshake("address_limit");
        let error = ProtocolError::new(ErrorCode::RateLimited, "too many connections from this address");
        error.retry_after_ms(over.retry_after_s.saturating_mul(1000))
    })?;
    let Some(place) = api.capacity.take() else {
        metrics.handshake("over_capacity");
        return Err(Failure(ProtocolError::new(ErrorCode::Unavailable, "this node is full; try again")));
    };
    if !api.node.backbone.health().ready {
        metrics.handshake("backbone_away");
        return Err(Failure(ProtocolError::new(ErrorCode::Unavailable, "the backbone is away; try again")));
    }
    if api.node.draining.load(Ordering::Relaxed) {
        metrics.handshake("draining");
        return Err(Failure(ProtocolError::new(ErrorCode::Unavailable, "this node is going down; try again")));
    }
    Ok((place, stay))
}

/// The user, by a token as on a socket; by a cookie alone not for a page of another site, which would take the user's places
/// and make them online. Whether the token was revoked is looked at while joining.
async fn identify(api: &Api, parts: &Parts) -> Result<Identity, Failure> {
    let (headers, query, from) = (&parts.headers, parts.uri.query(), address_key(&parts.extensions));
    if let Some(identity) = believed(query).filter(|_| !api.auth_enabled) {
        return Ok(identity);
    }
    let authenticator = &api.node.authenticator;
    let metrics = &api.node.metrics;
    let Some(credential) = Credential::of_upgrade(headers, query, authenticator.session_cookie()) else {
        metrics.handshake(TokenRefusal::Missing.label());
        return Err(not_let_in(AuthError::Refused(TokenRefusal::Missing)));
    };
    let scheme = parts.extensions.get::<ClientScheme>().copied();
    if Credential::is_upgrade_by_cookie(headers, query, authenticator.session_cookie())
        && !Source::of(headers, scheme, &api.origins).may_use_cookies()
    {
        metrics.handshake("origin");
        return Err(Failure(foreign_cookie()));
    }
    authenticator.authenticate(credential, from).await.map_err(|error| {
        metrics.handshake(match &error {
            AuthError::Refused(refused) => refused.label(),
            AuthError::Unavailable(_) => "auth_unavailable",
        });
        not_let_in(error)
    })
}

/// Where the stream goes on. `EventSource` comes back with the same query, so its header counts for more.
fn asked_position(headers: &HeaderMap, query: Option<&str>) -> Option<Resume> {
    let of_header = headers.get("last-event-id").map(|value| value.to_str().unwrap_or("?").trim().to_owned());
    let of_header = of_header.filter(|text| !text.is_empty());
    // Who comes back by the header comes with the places of the first time, which are no longer theirs: each large conversation
    // is told to fetch.
    let places = if of_header.is_some() { Some(Places::new()) } else { query.and_then(places_in) };
    let text = of_header.or_else(|| Some(query_value(query?, "since")?.into_owned()))?;
    Some(text.parse().map_or(Resume::Invalid, |position| Resume::From(position, places)))
}

/// `EventSource` gives up for good on every status but 200: it gets another only when to come back would be in vain.
fn refuse(error: &ProtocolError) -> Response {
    if matches!(error.code.http_status(), 400..=404) {
        return respond(error);
    }
    let least_ms = error.retry_after_ms.unwrap_or_default();
    let wait_ms = least_ms.saturating_add(rand::random_range(RETRY_MS));
    let lines = format!(": {}\n{}", error.code.as_str(), retry_line(wait_ms));
    (StatusCode::OK, stream_headers(), lines).into_response()
}

fn stream_headers() -> [(HeaderName, HeaderValue); 3] {
    [
        (CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM)),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // nginx and those who follow it pass each event on as it comes.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ]
}
