//! The operators' listener: metrics, health, stats. It must not be public.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;

use super::listener::Capacity;
use super::stats::Stats;
use crate::metrics;
use crate::node::Node;
use crate::node::readiness::Readiness;

/// The parts that the operators' routes work with.
pub struct Ops {
    node: Arc<Node>,
    capacity: Arc<Capacity>,
    prometheus: PrometheusHandle,
    readiness: Arc<Readiness>,
}

/// The operators' routes.
pub fn router(
    node: Arc<Node>,
    capacity: Arc<Capacity>,
    prometheus: PrometheusHandle,
    readiness: Arc<Readiness>,
) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/api/v1/internal/chat/ws/stats", get(stats))
        .with_state(Arc::new(Ops { node, capacity, prometheus, readiness }))
}

#[expect(clippy::cast_precision_loss, reason = "a node holds far fewer than 2^52 connections, and bytes of them")]
async fn scrape(State(ops): State<Arc<Ops>>) -> Response {
    let gauges = &ops.node.metrics;
    gauges.connections.set(ops.capacity.open() as f64);
    gauges.connections_max.set(ops.capacity.max() as f64);
    gauges.sessions.set(ops.node.registry.socket_count() as f64);
    let (waiting, most) = ops.node.registry.queued_bytes();
    gauges.queue_bytes.set(waiting as f64);
    gauges.queue_bytes_max.set(f64::from(most));
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics::render(&ops.prometheus)).into_response()
}

async fn readyz(State(ops): State<Arc<Ops>>) -> Response {
    let faults = ops.readiness.faults(&ops.node);
    if faults.is_empty() {
        return (StatusCode::OK, "ready\n").into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", faults.join("; "))).into_response()
}

async fn stats(State(ops): State<Arc<Ops>>) -> Json<Stats> {
    Json(Stats::of(&ops.node).await)
}
