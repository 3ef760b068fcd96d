//! Whether this node may get new users: not while it drains, the backbone isn't ready, or the store doesn't answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Node;
use crate::clock::every;

/// How old the store's answer may be.
const STORE_ANSWER_FRESH: Duration = Duration::from_secs(3);

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
        let mut up = true;
        let mut ticks = every(Duration::from_secs(1), stop);
        while ticks.next().await {
            let asked = Instant::now();
            let answered = node.store.ping().await;
            node.metrics.store_ping_seconds.record(asked.elapsed());
            match (&answered, up) {
                (Err(error), true) => tracing::warn!(%error, "the store does not answer"),
                (Ok(()), false) => tracing::info!("the store answers again"),
                (Err(_), false) | (Ok(()), true) => {}
            }
            up = answered.is_ok();
            node.metrics.store_up.set(f64::from(u8::from(up)));
            node.metrics.backbone_up.set(f64::from(u8::from(node.backbone.health().ready)));
            if up {
                *self.store_answered.lock() = Some(Instant::now());
            }
            let ready = self.faults(&node).is_empty();
            node.metrics.ready.set(f64::from(u8::from(ready)));
        }
    }

    /// The reasons against sending users here; empty when ready.
    #[must_use]
    pub fn faults(&self, node: &Node) -> Vec<String> {
        let mut faults = Vec::new();
        if self.draining.load(Ordering::Relaxed) {
            faults.push("draining".to_owned());
        }
        let health = node.backbone.health();
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
