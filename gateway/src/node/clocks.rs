//! Every periodic task of the node, on one tick a second: heartbeats, deadlines, presence, typing, readiness.

use std::sync::Arc;
use std::time::Duration;

use shared::UserId;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Node;
use crate::clock::every;
use crate::config::{LogConfig, Timeouts};
use crate::delivery::registry::SweepClocks;
use crate::overload;
use crate::switches;

/// The longest that presence goes without a refresh.
const REFRESH_S: u64 = 20;
/// How often each user's log is compared with what their sockets have seen.
const CHECK_S: u32 = 10;
/// Users refreshed in one call.
const REFRESH_USERS: usize = 500;

/// Sweeps the sockets' clocks until `stop`. Never waits for the store or the backbone.
pub async fn clocks(node: Arc<Node>, log: LogConfig, refresh: mpsc::Sender<Vec<UserId>>, stop: CancellationToken) {
    let clocks = sweep_clocks(&node.clocks, &log);
    let mut ticks = every(Duration::from_secs(1), stop);
    while ticks.next().await {
        let sweep = node.registry.sweep(&clocks);
        node.lobby.sweep();
        node.fanout.end_typing();
        node.user_rates.sweep();
        overload::sample();
        node.metrics.pings.increment(u64::from(sweep.pings));
        #[expect(clippy::cast_precision_loss, reason = "a node holds far fewer than 2^52 users")]
        node.metrics.users.set(node.registry.user_count() as f64);
        for users in sweep.refresh.chunks(REFRESH_USERS) {
            if refresh.try_send(users.to_vec()).is_err() {
                // The backbone is slow or away; the keys last for three beats of this.
                tracing::debug!("presence could not be refreshed in time");
            }
        }
        if !switches::off("log-check") {
            sweep.check.iter().for_each(|user| node.fanout.request_heal(user));
        }
    }
}

/// Refreshes presence until the clocks have stopped.
pub async fn refresh(node: Arc<Node>, mut users: mpsc::Receiver<Vec<UserId>>) {
    while let Some(users) = users.recv().await {
        if let Err(error) = node.chat.refresh(&users).await {
            tracing::debug!(%error, "presence could not be refreshed");
        }
    }
}

/// What needs the store or the backbone once a second, until `stop`.
pub async fn errands(node: Arc<Node>, stop: CancellationToken) {
    let mut ticks = every(Duration::from_secs(1), stop);
    while ticks.next().await {
        node.chat.end_silent_typing().await;
        node.chat.tell_turnover(false).await;
        node.chat.tell_counts().await;
        node.chat.flush_names().await;
        if let Err(error) = node.chat.announce_departures().await {
            tracing::debug!(%error, "departures could not be announced");
        }
    }
}

fn sweep_clocks(clocks: &Timeouts, log: &LogConfig) -> SweepClocks {
    let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
    SweepClocks {
        heartbeat_s: seconds(clocks.heartbeat),
        heartbeat_timeout_s: seconds(clocks.heartbeat_timeout),
        write_timeout_s: seconds(clocks.write_timeout),
        refresh_s: seconds(Duration::from_secs(REFRESH_S).min(log.online_ttl / 3)),
        check_s: CHECK_S,
    }
}
