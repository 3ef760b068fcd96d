//! REST: the routes of `/openapi.json`, and those of operators. A file per subject.
//! It offers [`router`] and [`admin_router`]; the OpenAPI document is made from the same table and types.
//! It never decides anything about chat: each handler is a step from a checked request to the domain.

mod admin;
mod asyncapi;
mod body;
mod caller;
mod control;
mod conversation_changes;
mod conversations;
mod describe;
mod erasure;
mod events;
pub(super) mod failure;
mod listings;
mod messages;
mod moderation;
mod openapi;
mod pages;
mod presence;
mod publish;
mod routes;
mod social;
mod streams;
mod tickets;
mod webhook;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use tracing::Instrument;

use crate::config::Origins;
use crate::http::browsers;
use crate::http::listener::Capacity;
use crate::limits::Addresses;
use crate::node::Node;
use routes::Routes;

/// The parts that every route works with.
pub struct Api {
    /// The node.
    pub node: Arc<Node>,
    /// The key of backends.
    pub api_key: Option<String>,
    /// Origins of browsers that may call routes, and change something by a cookie.
    pub origins: Arc<Origins>,
    /// The places of connections, which streams of events take as sockets do.
    pub capacity: Arc<Capacity>,
    /// The connections of each address, sockets and streams.
    pub addresses: Arc<Addresses>,
    /// Whether tokens are required; if not, `?user=` opens a stream (dev only).
    pub auth_enabled: bool,
}

/// The routes about connections, channels and the webhook of events, on the operators' listener.
pub fn admin_router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/api/v1/admin/connections", get(admin::connections))
        .route("/api/v1/admin/channels/{id}", get(admin::channel))
        .route("/api/v1/admin/webhook", get(webhook::lag))
        .route("/api/v1/admin/webhook/repeat", post(webhook::repeat))
        .with_state(api)
}

/// All public routes but the sockets.
pub fn router(api: Arc<Api>) -> Router {
    let one = "/api/v1/conversations/{id}";
    let of = |rest: &str| format!("{one}{rest}");
    Routes::new()
        .post("/api/v1/conversations", conversations::create, "Make a conversation")
        .get("/api/v1/conversations", conversations::list, "The user's conversations, newest activity first")
        .get(one, conversations::one, "A conversation")
        .patch(one, conversation_changes::change, "Change the title, visibility or password")
        .delete(one, conversation_changes::delete, "Delete a conversation")
        .get(&of("/members"), listings::members, "Members, in order of id")
        .post(&of("/members"), conversations::add, "Add a member")
        .patch(&of("/members/{user}"), conversations::set_role, "Give a member another role")
        .delete(&of("/members/{user}"), conversations::kick, "Remove a member")
        .post(&of("/bans"), conversations::ban, "Remove a user and keep them out")
        .delete(&of("/bans/{user}"), conversations::unban, "Lift a ban")
        .post(&of("/mutes"), moderation::mute, "Keep a member from writing for some time")
        .delete(&of("/mutes/{user}"), moderation::unmute, "Let a member write again")
        .post(&of("/invites"), conversations::invite, "Invite a user")
        .post(&of("/join"), conversations::join, "Join, or accept an invitation")
        .post(&of("/leave"), conversations::leave, "Leave, or decline an invitation")
        .post(&of("/read"), messages::read, "Mark messages as read")
        .get(&of("/messages"), messages::history, "Messages, ascending")
        .post("/api/v1/messages", messages::send, "Send a message")
        .patch("/api/v1/messages/{id}", messages::edit, "Edit one's own message")
        .delete("/api/v1/messages/{id}", messages::delete, "Delete a message")
        .get("/api/v1/messages/{id}", messages::one, "A message")
        .post("/api/v1/messages/{id}/reactions", messages::react, "React to a message")
        .delete("/api/v1/messages/{id}/reactions/{emoji}", messages::take_reaction_back, "Take a reaction back")
        .get("/api/v1/blocks", listings::blocks, "The users whom the user has blocked")
        .post("/api/v1/blocks", listings::block, "Block a user")
        .delete("/api/v1/blocks/{user}", listings::unblock, "Lift a block")
        .get("/api/v1/users", listings::users, "What users are called")
        .delete(
            "/api/v1/users/{user}/messages",
            moderation::remove_messages,
            "Delete a user's messages (backends, admins)",
        )
        .delete("/api/v1/users/{user}", erasure::erase, "Erase what is kept of a user (backends)")
        .get("/api/v1/users/{user}/export", erasure::export, "What is kept of a user, as JSON lines (backends)")
        .get("/api/v1/invites", listings::invites, "The conversations to which the user is invited")
        .get("/api/v1/channels", listings::channels, "Public channels")
        .get(
            caller::EVENTS_PATH,
            events::events,
            "Wait for events (long polling), or have them as they come (server-sent events)",
        )
        .get("/api/v1/presence", presence::presence, "Who is online")
        .post("/api/v1/publish", publish::publish, "Send an event to users (backends, admins)")
        .post("/api/v1/broadcast", publish::broadcast, "Send an event to every socket (backends, admins)")
        .post("/api/v1/control/disconnect", control::disconnect, "Close a user's sockets (backends, admins)")
        .post("/api/v1/control/revoke", control::revoke, "Revoke a user's tokens (backends, admins)")
        .get("/api/messages/private", social::private_messages, "Messages with a user (social)")
        .get("/api/messages/group", social::group_messages, "Messages of a group (social)")
        .post("/api/groups/invite", social::invite, "Invite a user to a group (social)")
        .get("/api/notifications", social::notifications, "The user's notifications, newest first (social)")
        .post("/api/notifications/read", social::read_notifications, "Mark notifications as read (social)")
        .post("/api/v2/ws-token", tickets::issue, "A ticket for one connection")
        .get("/api/v1/internal/chat/ws/stats", control::stats, "What this node holds (backends, admins)")
        .finish(api.node.limits.content_chars_max, &api.node.metrics)
        .fallback(failure::no_such_route)
        .method_not_allowed_fallback(failure::no_such_method)
        .layer(from_fn_with_state(Arc::clone(&api), streams::divert))
        .layer(from_fn_with_state(Arc::clone(&api.origins), browsers::guard))
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
        Some(id) if id.len() <= REQUEST_ID_BYTES_MAX && shared::id::check_name(id).is_ok() => id.to_owned(),
        Some(_) | None => format!("{:016x}", rand::random::<u64>()),
    }
}

/// Where a request's id stands.
const REQUEST_ID: &str = "x-request-id";
/// The longest that is taken from a proxy.
const REQUEST_ID_BYTES_MAX: usize = 64;
