//! Going down without a loss: unready first, serve on, say goodbye, close in batches, then stop (DESIGN §8).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rand::seq::SliceRandom;
use shared::{CloseCode, Event};

use super::Node;
use super::readiness::Readiness;
use crate::config::Drain;
use crate::delivery::frames::Frames;
use crate::delivery::send_queue::SendQueue;
use crate::switches;

/// Time between two batches of closes.
const BATCH_EVERY: Duration = Duration::from_millis(100);
/// Time for a command under way to be answered before its socket closes.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// The part of the drain that is kept for the last sessions to end and the last rows to be published.
const TAIL: Duration = Duration::from_secs(3);

/// Resolves on SIGTERM or SIGINT.
pub async fn signal() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Closes every socket, spread over the window that the settings leave.
pub async fn drain(node: &Arc<Node>, readiness: &Readiness, drain: &Drain) {
    let started = Instant::now();
    readiness.drain(node);
    tracing::info!(delay_s = drain.delay.as_secs(), "not ready any more; serving on while load balancers notice");
    tokio::time::sleep(drain.delay).await;

    node.draining.store(true, Ordering::Relaxed);
    let window = drain.total.saturating_sub(drain.delay).saturating_sub(TAIL.min(drain.total / 4));
    let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
    tracing::info!(sockets = node.registry.socket_count(), window_ms, "closing sockets");
    let goaway = Event::Goaway { reconnect_window_ms: window_ms, reason: "draining".into() };
    node.registry.push_everyone(&Frames::of(&goaway));
    node.lobby.close_all(CloseCode::Draining);
    close_in_batches(node, window, started + drain.total).await;
    tracing::info!(sockets = node.registry.socket_count(), "drained");
}

/// Closes a random part of the sockets every tenth of a second, so that no other node meets a herd. A socket first takes no
/// further command, and is closed when what was under way has been answered.
async fn close_in_batches(node: &Node, window: Duration, deadline: Instant) {
    let batches = (window.as_millis() / BATCH_EVERY.as_millis()).max(1);
    let mut quiet: VecDeque<(Instant, Vec<Arc<SendQueue>>)> = VecDeque::new();
    for batch in (1..=batches).rev() {
        let mut queues = node.registry.queues();
        if queues.is_empty() {
            return;
        }
        queues.retain(|queue| !queue.liveness().is_quiet());
        queues.shuffle(&mut rand::rng());
        queues.truncate(queues.len().div_ceil(usize::try_from(batch).unwrap_or(1)));
        queues.iter().for_each(|queue| queue.liveness().quiesce());
        quiet.push_back((Instant::now(), queues));
        close_answered(&mut quiet);
        tokio::time::sleep(BATCH_EVERY).await;
    }
    while node.registry.socket_count() > 0 && Instant::now() < deadline {
        close_answered(&mut quiet);
        if quiet.is_empty() {
            node.registry.queues().iter().for_each(|queue| queue.close(CloseCode::Draining));
        }
        tokio::time::sleep(BATCH_EVERY).await;
    }
}

/// Closes the sockets that have taken no command for [`ANSWER_WITHIN`].
fn close_answered(quiet: &mut VecDeque<(Instant, Vec<Arc<SendQueue>>)>) {
    while quiet.front().is_some_and(|(since, _)| since.elapsed() >= ANSWER_WITHIN || switches::off("drain-answer")) {
        let answered = quiet.pop_front().into_iter().flat_map(|(_, queues)| queues);
        answered.for_each(|queue| queue.close(CloseCode::Draining));
    }
}
