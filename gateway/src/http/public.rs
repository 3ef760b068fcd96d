//! The answers of the public listener: sockets on the dialects' paths, the routes on all others.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use tower::ServiceExt;

use super::upgrade::Sockets;

/// Sockets and routes on one port.
pub struct Public {
    /// Opens sockets. It owns the counts of addresses; the sessions that it starts are the app's.
    sockets: Sockets,
    /// Everything else.
    routes: Router,
}

impl Public {
    /// Serves both.
    #[must_use]
    pub fn new(sockets: Sockets, routes: Router) -> Self {
        Self { sockets, routes }
    }

    /// Answers one request.
    pub async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        if Sockets::serves(request.uri().path()) {
            return self.sockets.upgrade(request).await;
        }
        answer(self.routes.clone(), request).await
    }
}

/// Answers one request by routes alone.
pub async fn answer(routes: Router, request: Request<Incoming>) -> Response<Body> {
    match routes.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}
