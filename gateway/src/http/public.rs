//! The answers of the public listener: sockets on the dialects' paths, the routes on all others.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use hyper::Request;
use tower::ServiceExt;

use super::head::foreign_name;
use super::upgrade::Sockets;

/// Sockets and routes on one port.
pub struct Public {
    /// Opens sockets. It owns the counts of addresses; the sessions that it starts are the app's.
    sockets: Sockets,
    /// Everything else.
    routes: Router,
    /// In `gateway dev`, which gives tokens to every caller.
    loopback_only: bool,
}

impl Public {
    /// Serves both; with `loopback_only` under this machine's own names alone.
    #[must_use]
    pub fn new(sockets: Sockets, routes: Router, loopback_only: bool) -> Self {
        Self { sockets, routes, loopback_only }
    }

    /// Answers one request.
    pub async fn answer(self: Arc<Self>, request: Request<Body>) -> Response<Body> {
        if let Some(refusal) = foreign_name(&request).filter(|_| self.loopback_only) {
            return refusal;
        }
        if Sockets::serves(request.uri().path()) {
            return self.sockets.upgrade(request).await;
        }
        answer(self.routes.clone(), request).await
    }
}

/// Answers one request by routes alone.
pub async fn answer(routes: Router, request: Request<Body>) -> Response<Body> {
    match routes.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}
