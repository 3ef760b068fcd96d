//! From an HTTP request to a session: credential, address, dialect, compression, and room on the node.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::http::header::{RETRY_AFTER, SEC_WEBSOCKET_VERSION, USER_AGENT};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use hyper::{Request, Uri};
use shared::{CloseCode, Dialect, ErrorCode, ProtocolError, Wire};
use tokio_util::task::TaskTracker;

use super::admission::{Refusal, admit, believed};
use super::browsers::Source;
use super::client_address::{ClientAddress, ClientScheme, address_key};
use super::listener::{Capacity, Place};
use super::plain_connections::PacedStream;
use super::rest::failure::respond;
use crate::auth::{Credential, TokenRefusal, credentials};
use crate::clock::now_us;
use crate::config::{AuthConfig, Origins};
use crate::delivery::send_queue::SendQueue;
use crate::limits::{AddressKey, Addresses, OverLimit, Stay, may_take};
use crate::node::Node;
use crate::session::socket::Socket;
use crate::session::{Opening, Session};
use crate::ws::extensions::accept_deflate;
use crate::ws::handshake::{PendingUpgrade, accept};

/// When a client may come again whose address has too many sockets without a token, in seconds: by then most have a token, or are
/// closed.
const SEATS_RETRY_S: u64 = 10;

/// Opens sockets.
pub struct Sockets {
    node: Arc<Node>,
    capacity: Arc<Capacity>,
    addresses: Arc<Addresses>,
    tasks: TaskTracker,
    config: SocketsConfig,
}

/// Checks who may open a socket.
#[derive(Debug, Clone)]
pub struct SocketsConfig {
    /// Origins of browsers.
    pub allowed_origins: Origins,
    /// Whether tokens are required; if not, `?user=` is accepted (dev only).
    pub auth_enabled: bool,
}

impl SocketsConfig {
    /// The part of the settings that concerns sockets.
    #[must_use]
    pub fn of(auth: &AuthConfig) -> Self {
        Self { allowed_origins: auth.allowed_origins.clone(), auth_enabled: auth.enabled }
    }
}

impl Sockets {
    /// Opens sockets on this node, each in a task of `tasks`.
    #[must_use]
    pub fn new(
        node: Arc<Node>,
        (capacity, addresses): (Arc<Capacity>, Arc<Addresses>),
        tasks: TaskTracker,
        config: SocketsConfig,
    ) -> Self {
        Self { node, capacity, addresses, tasks, config }
    }

    /// Whether the path is one of a dialect.
    #[must_use]
    pub fn serves(path: &str) -> bool {
        Dialect::of_path(path).is_some()
    }

    /// Answers the upgrade request and starts the session.
    pub async fn upgrade(&self, mut request: Request<Body>) -> Response<Body> {
        if !self.origin_allowed(&request) {
            self.node.metrics.handshake("origin");
            return (StatusCode::FORBIDDEN, "this origin is not allowed; see ALLOWED_ORIGINS\n").into_response();
        }
        let stay = match self.enter(&request) {
            Ok(stay) => stay,
            Err(crowded) => return self.too_many(crowded),
        };
        let Some(place) = self.capacity.take() else {
            self.node.metrics.handshake("over_capacity");
            let retry = [(RETRY_AFTER, HeaderValue::from_static("2"))];
            return (StatusCode::SERVICE_UNAVAILABLE, retry, "this node is full; try again\n").into_response();
        };
        if !self.node.backbone.health().ready {
            self.node.metrics.handshake("backbone_away");
            let retry = [(RETRY_AFTER, HeaderValue::from(rand::random_range(1..=3_u16)))];
            return (StatusCode::SERVICE_UNAVAILABLE, retry, "the backbone is away; try again\n").into_response();
        }
        let Negotiated { wire, subprotocol, extension } = spoken(&request, self.node.limits.compress_min_bytes);
        let (response, upgrade) = match accept(&mut request, subprotocol, extension) {
            Ok(accepted) => accepted,
            Err(fault) => {
                self.node.metrics.handshake("not_websocket");
                let mut answer = (fault.status(), format!("{fault}\n")).into_response();
                answer.headers_mut().extend(fault.version().map(|version| (SEC_WEBSOCKET_VERSION, version)));
                return answer;
            }
        };
        let from = address_key(request.extensions());
        let opening = match wire {
            Some(_) => match self.opening(request.uri(), request.headers(), from).await {
                Ok(opening) => opening,
                Err(answer) => return answer,
            },
            None => Opening::Close(CloseCode::UnsupportedVersion),
        };
        let wire = wire.unwrap_or(Wire::CHAT);
        let connection = self.node.next_connection();
        if let Some(ClientAddress(address)) = request.extensions().get::<ClientAddress>() {
            let agent = request.headers().get(USER_AGENT).map(HeaderValue::as_bytes);
            self.node.clients.keep(connection, *address, agent);
        }
        self.tasks.spawn(run(Arc::clone(&self.node), connection, upgrade, wire, (opening, from), (place, stay)));
        response.map(|_| Body::empty())
    }

    /// Counts the handshake for the client's address.
    fn enter<B>(&self, request: &Request<B>) -> Result<Option<Stay>, OverLimit> {
        let client = request.extensions().get::<ClientAddress>();
        client.map(|ClientAddress(address)| self.addresses.enter(*address)).transpose()
    }

    /// Whether another socket of this address may wait for its token: no address has all places that are left.
    fn has_seat(&self, from: AddressKey) -> bool {
        let free = self.capacity.max().saturating_sub(self.capacity.open());
        may_take(self.node.lobby.waiting_from(from), free)
    }

    fn too_many(&self, crowded: OverLimit) -> Response<Body> {
        self.node.metrics.handshake("address_limit");
        let retry = [(RETRY_AFTER, HeaderValue::from(crowded.retry_after_s))];
        (StatusCode::TOO_MANY_REQUESTS, retry, "too many connections from this address; try again later\n")
            .into_response()
    }

    /// The state of the user's authentication; an answer, if the request is refused.
    async fn opening(&self, uri: &Uri, headers: &HeaderMap, from: AddressKey) -> Result<Opening, Response<Body>> {
        if self.node.draining.load(Ordering::Relaxed) {
            return Ok(Opening::Close(CloseCode::Draining));
        }
        let refusal = if Dialect::of_path(uri.path()) == Some(Dialect::Chat) {
            Refusal::AfterUpgrade
        } else {
            Refusal::BeforeUpgrade
        };
        let believed = if self.config.auth_enabled { None } else { believed(uri.query()) };
        let asked = (headers, uri.query(), from);
        let opening = admit(&self.node.authenticator, asked, refusal, believed).await;
        let opening = opening.inspect_err(|answer| self.node.metrics.handshake(refused_as(answer)))?;
        if matches!(opening, Opening::Unknown(_)) && !self.has_seat(from) {
            return Err(self.too_many(OverLimit { retry_after_s: SEATS_RETRY_S }));
        }
        let Opening::Known(identity, _) = &opening else { return Ok(opening) };
        match (self.node.connects.take(&identity.user, now_us()), refusal) {
            (Ok(()), _) => Ok(opening),
            (Err(_), Refusal::AfterUpgrade) => {
                self.node.metrics.handshake("user_rate");
                Ok(Opening::Close(CloseCode::RateLimited))
            }
            (Err(wait_us), Refusal::BeforeUpgrade) => {
                self.node.metrics.handshake("user_rate");
                let error = ProtocolError::new(ErrorCode::RateLimited, "this user connects too often; wait a little");
                Err(respond(&error.retry_after_ms(wait_us.div_ceil(1000))))
            }
        }
    }

    /// Whether a page of the request's origin may open a socket: not by a cookie alone, where `*` is all that allows it.
    fn origin_allowed<B>(&self, request: &Request<B>) -> bool {
        let (headers, origins) = (request.headers(), &self.config.allowed_origins);
        let scheme = request.extensions().get::<ClientScheme>().copied();
        let source = Source::of(headers, scheme, origins);
        let session_cookie = self.node.authenticator.session_cookie();
        source.may_connect(origins)
            && (source.may_use_cookies()
                || !Credential::is_upgrade_by_cookie(headers, request.uri().query(), session_cookie))
    }
}

/// How a socket is to be spoken to: nothing if only unknown subprotocols are offered.
struct Negotiated {
    wire: Option<Wire>,
    /// To answer with; one that the client offered, because a browser takes no other.
    subprotocol: Option<HeaderValue>,
    /// To answer with: permessage-deflate, if the client offered it.
    extension: Option<HeaderValue>,
}

/// The dialect that the request asks for. A flat one has positions only for who names `resume` in the query. Messages of
/// `compress_min_bytes` or more are compressed, if the client can take that.
fn spoken<B>(request: &Request<B>, compress_min_bytes: Option<NonZeroU16>) -> Negotiated {
    let chosen = Dialect::choose(request.uri().path(), credentials::offered_dialects(request.headers()));
    let Some((dialect, subprotocol)) = chosen else {
        // The browser is to see the close code, for which the handshake has to succeed.
        let offered = credentials::offered_dialects(request.headers()).next();
        let subprotocol = offered.and_then(|name| name.parse().ok());
        return Negotiated { wire: None, subprotocol, extension: None };
    };
    let subprotocol = subprotocol.map(HeaderValue::from_static);
    let query = request.uri().query().unwrap_or_default();
    let resumes = form_urlencoded::parse(query.as_bytes()).any(|(key, _)| key == "resume");
    let extension = compress_min_bytes.and_then(|_| accept_deflate(request.headers()));
    let deflate_from = extension.as_ref().and(compress_min_bytes);
    let wire = Wire { dialect, numbered: resumes || dialect == Dialect::Chat, deflate_from };
    Negotiated { wire: Some(wire), subprotocol, extension }
}

/// The metric label of a refusal by HTTP: what [`admit`] left with the answer.
fn refused_as(answer: &Response<Body>) -> &'static str {
    answer.extensions().get::<TokenRefusal>().map_or("auth_unavailable", |refused| refused.label())
}

/// A socket's task: a panic in one ends that one alone.
async fn run(
    node: Arc<Node>,
    connection: u64,
    upgrade: PendingUpgrade,
    wire: Wire,
    (opening, from): (Opening, AddressKey),
    places: (Place, Option<Stay>),
) {
    let (stream, early) = match upgrade.complete::<PacedStream>().await {
        Ok(upgraded) => upgraded,
        Err(error) => {
            tracing::debug!(%error, "a client closed the connection during the upgrade");
            node.metrics.handshake("vanished");
            node.clients.forget(connection);
            return;
        }
    };
    let queue = Arc::new(SendQueue::new(node.limits.send_queue_bytes, wire));
    let socket = Socket::new(stream, early, Arc::clone(&queue), node.limits.frame_bytes_max);
    let session = Session::new(Arc::clone(&node), connection, socket, queue, (opening, from));
    tracing::debug!(connection, "a connection begins");
    match contained(session).await {
        Some(ended) => {
            let (by, reason) = ended.by_and_reason();
            node.metrics.ended(by, reason);
            tracing::debug!(connection, by, reason, "a connection ended");
        }
        None => {
            tracing::error!(connection, "a session panicked");
            node.metrics.panics.increment(1);
        }
    }
    node.clients.forget(connection);
    drop(places);
}

/// A future's output, or `None` if it panicked. Its values are dropped, so a panicking session leaves the registry.
async fn contained<F: Future>(future: F) -> Option<F::Output> {
    std::panic::AssertUnwindSafe(future).catch_unwind().await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_ends_one_session_and_gives_its_place_back() {
        let capacity = Capacity::new(2);
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let stays = {
            let place = capacity.take();
            tokio::spawn(contained(async move {
                let _place = place;
                wait.await.is_ok()
            }))
        };
        let place = capacity.take();
        let panics = contained(async move {
            let _place = place;
            if capacity_is_taken() {
                panic!("a fault of the server");
            }
        });
        assert_eq!(capacity.open(), 2);
        assert_eq!(tokio::spawn(panics).await.expect("the task itself ends well"), None);
        assert_eq!(capacity.open(), 1);
        go.send(()).expect("the other session is still there");
        assert_eq!(stays.await.expect("and ends well"), Some(true));
        assert_eq!(capacity.open(), 0);
    }

    /// A condition that the compiler doesn't see through.
    fn capacity_is_taken() -> bool {
        std::hint::black_box(true)
    }
}
