//! The drain: unready first, serve on, send `goaway`, close in batches, then stop part after part, so that nothing is
//! lost.
//!
//! All of it has one deadline, so a part that hangs can't keep the process.

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

/// How long after `DRAIN_SECONDS` the parts of a node may still take to end, all of them together.
pub const STOP_MARGIN: Duration = Duration::from_secs(10);

/// The node ended before this part of it was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node stopped before {0} had ended; the log says more")]
pub struct Unfinished(pub &'static str);

/// Waits for one part of a node after the other, and for none beyond the deadline.
#[derive(Debug)]
pub struct Stopping {
    deadline: tokio::time::Instant,
    /// The first part that did not end as it should.
    unfinished: Option<&'static str>,
}

impl Stopping {
    /// All parts have to end within this time from now.
    #[must_use]
    pub fn within(all: Duration) -> Self {
        Self { deadline: tokio::time::Instant::now() + all, unfinished: None }
    }

    /// Waits for a part until the deadline.
    pub async fn wait_for(&mut self, part: &'static str, end: impl Future<Output = ()>) {
        self.wait_at_most(Duration::MAX, part, end).await;
    }

    /// Waits for a part that may take only so long, so that something is left for the others.
    pub async fn wait_at_most(&mut self, most: Duration, part: &'static str, end: impl Future<Output = ()>) {
        let until = tokio::time::Instant::now().checked_add(most).map_or(self.deadline, |at| at.min(self.deadline));
        if tokio::time::timeout_at(until, end).await.is_err() {
            tracing::error!(part, "did not end in time; the node stops without it");
            self.unfinished.get_or_insert(part);
        }
    }

    /// Waits for a task until the deadline.
    pub async fn join(&mut self, part: &'static str, task: tokio::task::JoinHandle<()>) {
        match tokio::time::timeout_at(self.deadline, task).await {
            Ok(Ok(())) => return,
            Ok(Err(fault)) => tracing::error!(part, %fault, "a part of the node panicked"),
            Err(_) => tracing::error!(part, "did not end in time; the node stops without it"),
        }
        self.unfinished.get_or_insert(part);
    }

    /// Whether all parts have ended.
    ///
    /// # Errors
    /// The first that has not.
    pub fn end(self) -> Result<(), Unfinished> {
        self.unfinished.map_or(Ok(()), |part| Err(Unfinished(part)))
    }
}

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
    tracing::info!(delay_s = drain.delay.as_secs(), "draining: not ready, but serving until load balancers notice");
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
    // Who is left has waited for a close, as a stream's client does, and would keep the node from its end.
    node.registry.queues().iter().for_each(|queue| queue.close(CloseCode::Draining));
}

/// Closes the sockets that have taken no command for [`ANSWER_WITHIN`].
fn close_answered(quiet: &mut VecDeque<(Instant, Vec<Arc<SendQueue>>)>) {
    while quiet.front().is_some_and(|(since, _)| since.elapsed() >= ANSWER_WITHIN || switches::off("drain-answer")) {
        let answered = quiet.pop_front().into_iter().flat_map(|(_, queues)| queues);
        answered.for_each(|queue| queue.close(CloseCode::Draining));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_hangs_ends_with_the_deadline_and_is_named() {
        let begun = Instant::now();
        let mut stopping = Stopping::within(Duration::from_secs(2));
        stopping.wait_for("one", std::future::ready(())).await;
        stopping.wait_at_most(Duration::from_millis(100), "two", std::future::pending()).await;
        assert!(begun.elapsed() < Duration::from_millis(1500), "the others still have their time");
        stopping.join("three", tokio::spawn(std::future::pending())).await;
        stopping.wait_for("four", std::future::pending()).await;
        assert!(begun.elapsed() < Duration::from_secs(6));
        assert_eq!(stopping.end(), Err(Unfinished("two")));
    }

    #[tokio::test]
    async fn a_task_that_panicked_counts_as_not_done() {
        let mut stopping = Stopping::within(Duration::from_secs(10));
        stopping.join("one", tokio::spawn(std::future::ready(()))).await;
        assert_eq!(stopping.unfinished, None);
        stopping.join("two", tokio::spawn(async { panic!("a fault of the server") })).await;
        assert_eq!(stopping.end(), Err(Unfinished("two")));
    }
}
