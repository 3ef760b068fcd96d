//! The operators' listener: metrics, health, stats. Not for the public.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use parking_lot::Mutex;

use super::listener::Capacity;
use super::stats::Stats;
use crate::metrics;
use crate::node::Node;

/// How old the store's answer may be.
const STORE_ANSWER_FRESH: Duration = Duration::from_secs(3);

/// What the operators' routes work with.
pub struct Ops {
    node: Arc<Node>,
    capacity: Arc<Capacity>,
    prometheus: PrometheusHandle,
    readiness: Arc<Readiness>,
}

/// Whether the node may be sent users (invariant 7).
#[derive(Debug, Default)]
pub struct Readiness {
    draining: AtomicBool,
    store_answered: Mutex<Option<Instant>>,
}

impl Readiness {
    /// Unready from now on.
    pub fn drain(&self, node: &Node) {
        self.draining.store(true, Ordering::Relaxed);
        node.metrics.draining.set(1.0);
        node.metrics.ready.set(0.0);
    }

    /// Asks the store whether it answers, again and again, until `stop`.
    pub async fn watch_store(&self, node: Arc<Node>, stop: tokio_util::sync::CancellationToken) {
        let mut beat = tokio::time::interval(Duration::from_secs(1));
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut up = true;
        loop {
            tokio::select! {
                _ = beat.tick() => {}
                () = stop.cancelled() => return,
            }
            let asked = Instant::now();
            let answered = node.chat.store().ping().await;
            node.metrics.store_ping_seconds.record(asked.elapsed());
            match (&answered, up) {
                (Err(error), true) => tracing::warn!(%error, "the store does not answer"),
                (Ok(()), false) => tracing::info!("the store answers again"),
                (Err(_), false) | (Ok(()), true) => {}
            }
            up = answered.is_ok();
            node.metrics.store_up.set(f64::from(u8::from(up)));
            node.metrics.backbone_up.set(f64::from(u8::from(node.chat.backbone().health().ready)));
            if up {
                *self.store_answered.lock() = Some(Instant::now());
            }
            let ready = self.faults(&node).is_empty();
            node.metrics.ready.set(f64::from(u8::from(ready)));
        }
    }

    /// What stands against sending users here; empty when ready.
    #[must_use]
    pub fn faults(&self, node: &Node) -> Vec<String> {
        let mut faults = Vec::new();
        if self.draining.load(Ordering::Relaxed) {
            faults.push("draining".to_owned());
        }
        let health = node.chat.backbone().health();
        if !health.ready {
            faults.push(format!("backbone: {}", health.detail));
        }
        if node.chat.is_left_behind() {
            faults.push("backbone: the other nodes have left this Redis server for another".to_owned());
        }
        if !self.store_answered.lock().is_some_and(|at| at.elapsed() < STORE_ANSWER_FRESH) {
            faults.push("store: no answer within 3 s".to_owned());
        }
        faults
    }
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
