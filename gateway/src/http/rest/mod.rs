//! REST: the routes of PROTOCOL §3, each a thin step from a checked request to the domain.

mod admin;
mod body;
mod caller;
mod control;
mod conversations;
pub(super) mod failure;
mod messages;
mod presence;
mod publish;
mod social;
mod tickets;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{delete, get, post};
use tracing::Instrument;

use crate::node::Node;

/// What every route works with.
pub struct Api {
    /// The node.
    pub node: Arc<Node>,
    /// The key of backends.
    pub api_key: Option<String>,
}

/// The routes about connections and channels, on the operators' listener.
pub fn admin_router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/api/v1/admin/connections", get(admin::connections))
        .route("/api/v1/admin/channels/{id}", get(admin::channel))
        .with_state(api)
}

/// All public routes but the sockets.
pub fn router(api: Arc<Api>) -> Router {
    let one = "/api/v1/conversations/{id}";
    let of = |rest: &str| format!("{one}{rest}");
    Router::new()
        .route("/api/v1/conversations", post(conversations::create).get(conversations::list))
        .route(one, get(conversations::one))
        .route(&of("/members"), post(conversations::add))
        .route(&of("/members/{user}"), delete(conversations::kick).patch(conversations::set_role))
        .route(&of("/bans"), post(conversations::ban))
        .route(&of("/bans/{user}"), delete(conversations::unban))
        .route(&of("/invites"), post(conversations::invite))
        .route(&of("/join"), post(conversations::join))
        .route(&of("/leave"), post(conversations::leave))
        .route(&of("/read"), post(messages::read))
        .route(&of("/messages"), get(messages::history))
        .route("/api/v1/messages", post(messages::send))
        .route("/api/v1/presence", get(presence::presence))
        .route("/api/v1/publish", post(publish::publish))
        .route("/api/v1/broadcast", post(publish::broadcast))
        .route("/api/v1/control/disconnect", post(control::disconnect))
        .route("/api/v1/control/revoke", post(control::revoke))
        .route("/api/messages/private", get(social::private_messages))
        .route("/api/messages/group", get(social::group_messages))
        .route("/api/groups/invite", post(social::invite))
        .route("/api/notifications", get(social::notifications))
        .route("/api/notifications/read", post(social::read_notifications))
        .route("/api/v2/ws-token", post(tickets::issue))
        .route("/api/v1/internal/chat/ws/stats", get(control::stats))
        .fallback(failure::no_such_route)
        .method_not_allowed_fallback(failure::no_such_method)
        .layer(from_fn_with_state(Arc::clone(&api), account))
        .with_state(api)
}

/// Counts and logs a request under its route's pattern, never under its path: that is the caller's. The request's id is the
/// proxy's or a new one; what is logged on the way carries it, and so does the answer.
async fn account(State(api): State<Arc<Api>>, route: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let (started, method) = (Instant::now(), request.method().clone());
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let id = request_id(request.headers());
    let span = tracing::info_span!("request", id);
    let mut response = next.run(request).instrument(span.clone()).await;
    let (status, took) = (response.status().as_u16(), started.elapsed());
    api.node.metrics.request(route, method.as_str(), status, took);
    span.in_scope(|| tracing::debug!(%method, route, status, took_ms = took.as_millis(), "answered"));
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// The id that a proxy gave the request, if it is one that can stand in a log.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    match given {
        Some(id) if id.len() <= REQUEST_ID_BYTES_MAX && shared::id::check_id(id).is_ok() => id.to_owned(),
        Some(_) | None => format!("{:016x}", rand::random::<u64>()),
    }
}

/// Where a request's id stands.
const REQUEST_ID: &str = "x-request-id";
/// The longest that is taken from a proxy.
const REQUEST_ID_BYTES_MAX: usize = 64;
