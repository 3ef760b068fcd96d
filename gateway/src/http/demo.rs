//! The demo page of `gateway dev`, and tokens for its two users. `gateway serve` doesn't have it.

use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use shared::UserId;

use crate::auth::token::mint;
use crate::config::AuthConfig;

/// The users that can be tried out.
pub const USERS: [&str; 2] = ["alice", "bob"];
/// How long their tokens are good for, in seconds.
pub const TOKEN_TTL_S: u64 = 24 * 3600;

const PAGE: &str = include_str!("../demo/index.html");
/// The page holds its own style and script, and talks to its own host alone.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self' ws: wss:; img-src data:; base-uri 'none'; form-action 'none'";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DemoUser {
    user_id: UserId,
    token: String,
}

/// The page's routes.
pub fn router(auth: AuthConfig) -> Router {
    let headers =
        [(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, POLICY), (CACHE_CONTROL, "no-store")];
    let users = move || {
        let users = USERS.iter().filter_map(|name| demo_user(&auth, name)).collect::<Vec<_>>();
        async move { ([(CACHE_CONTROL, "no-store")], Json(users)) }
    };
    Router::new()
        .route("/", get(move || async move { (headers, PAGE).into_response() }))
        .route("/demo/users", get(users))
}

fn demo_user(auth: &AuthConfig, name: &str) -> Option<DemoUser> {
    let user_id = UserId::parse(name).ok()?;
    let token = mint(auth, &user_id, Some(name), false, TOKEN_TTL_S)?;
    Some(DemoUser { user_id, token })
}
