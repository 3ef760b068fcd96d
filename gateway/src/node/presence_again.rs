//! Tells users their partners' presence anew after the backbone lost its memory: it forgot who was online through a node that
//! is gone by now, so nobody would ever tell of their going. It never tells of a single user: the announcer does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::UserId;
use tokio_util::sync::CancellationToken;

use super::Node;
use crate::clock::every;
use crate::delivery::frames::Frames;

/// Users who are told in one second. Each takes a query of the store, as a connect does.
const USERS_A_SECOND: usize = 200;
/// How long nodes may take to find the new server.
const RECONNECTED_WITHIN: Duration = Duration::from_secs(10);

/// Once a second, until `stop`. Every node has marked its users again `online_ttl` after it found the new server.
pub async fn run(node: Arc<Node>, online_ttl: Duration, stop: CancellationToken) {
    let mut again = PresenceAgain { node, server: None, due: None, left: Vec::new() };
    let mut ticks = every(Duration::from_secs(1), stop.clone());
    while ticks.next().await {
        stop.run_until_cancelled(again.beat(online_ttl.max(RECONNECTED_WITHIN))).await;
    }
}

struct PresenceAgain {
    node: Arc<Node>,
    /// The backbone's server as it was known last.
    server: Option<Arc<str>>,
    due: Option<Instant>,
    /// Local users who are to be told.
    left: Vec<UserId>,
}

impl PresenceAgain {
    async fn beat(&mut self, wait: Duration) {
        let server = self.node.backbone.health().server;
        if server.is_some() && server != self.server {
            // The first one that is known has taken nobody's place.
            self.due = self.server.is_some().then(|| Instant::now() + wait);
            self.server = server;
        }
        if self.due.take_if(|due| *due <= Instant::now()).is_some() {
            self.left = self.node.registry.users();
        }
        for _ in 0..USERS_A_SECOND {
            let Some(user) = self.left.pop() else { return };
            match self.node.chat.status_of_partners(&user).await {
                Ok(status) => drop(self.node.registry.push_ephemeral(user.as_str(), &Frames::of(&status))),
                Err(error) => {
                    tracing::debug!(error = %error.message, "presence could not be told anew; the next beat goes on");
                    self.left.push(user);
                    return;
                }
            }
        }
    }
}
