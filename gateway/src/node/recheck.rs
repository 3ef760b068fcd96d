//! Re-checks connected users: for revocations that this node may have missed or Redis may have forgotten, and for sessions
//! that were deleted. If the backbone can't answer, the connection stays open.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use shared::{CloseCode, UserId};
use tokio_util::sync::CancellationToken;

use super::Node;
use crate::auth::{Due, Unavailable};
use crate::backbone::BackboneError;
use crate::chat::revocations::RestoreError;
use crate::clock::every;

/// Users looked up in one call.
const USERS: usize = 500;
/// Sessions looked for in one beat, and at the same time.
const SESSIONS: usize = 512;
const SESSIONS_AT_ONCE: usize = 32;
/// Beats between two looks for revocations that are too old to matter.
const PRUNE_BEATS: u32 = 3600;

/// Once a second, until `stop`.
pub async fn run(node: Arc<Node>, stop: CancellationToken) {
    let mut recheck = Recheck { node, server: None, left: Vec::new(), beats: 0 };
    let mut ticks = every(Duration::from_secs(1), stop.clone());
    while ticks.next().await {
        // A check under way ends with `stop`: no other node relies on it.
        stop.run_until_cancelled(recheck.beat()).await;
    }
}

struct Recheck {
    node: Arc<Node>,
    /// The backbone's server that knows every revocation of the store.
    server: Option<Arc<str>>,
    /// Local users that have to be looked up.
    left: Vec<UserId>,
    beats: u32,
}

impl Recheck {
    async fn beat(&mut self) {
        let health = self.node.backbone.health();
        if health.ready {
            if health.server.is_some() && health.server != self.server {
                match self.restore().await {
                    Ok(()) => self.server = health.server,
                    Err(error) => {
                        tracing::warn!(%error, "revocations could not be copied to the backbone; retrying")
                    }
                }
            }
            if self.node.doubtful.swap(false, Ordering::AcqRel) {
                self.left = self.node.registry.users();
                self.node.sessions.doubt_all();
            }
            if let Err(error) = self.look_up().await {
                tracing::debug!(%error, users = self.left.len(), "revocations could not be looked up");
            }
            self.look_for_sessions().await;
        }
        self.beats = self.beats.wrapping_add(1);
        if self.beats.is_multiple_of(PRUNE_BEATS)
            && let Err(error) = self.node.chat.prune_revocations().await
        {
            tracing::debug!(%error, "old revocations could not be deleted");
        }
    }

    /// Another server may have none of them, and it accepted users who came meanwhile.
    async fn restore(&mut self) -> Result<(), RestoreError> {
        let restored = self.node.chat.restore_revocations().await?;
        tracing::debug!(restored, "the backbone has all revocations again");
        self.left = self.node.registry.users();
        Ok(())
    }

    async fn look_up(&mut self) -> Result<(), BackboneError> {
        while !self.left.is_empty() {
            let from = self.left.len().saturating_sub(USERS);
            let users = self.left.get(from..).unwrap_or_default();
            let revoked = self.node.backbone.revoked_at(users).await?;
            for (user, revoked_s) in users.iter().zip(revoked) {
                let Some(revoked_s) = revoked_s else { continue };
                let closed = self.node.registry.close_revoked(user, revoked_s);
                if closed > 0 {
                    tracing::info!(%user, closed, "closed the sockets of a user whose revocation was missed");
                }
            }
            self.left.truncate(from);
        }
        Ok(())
    }

    async fn look_for_sessions(&self) {
        let due = self.node.sessions.due(SESSIONS);
        let looks: Vec<_> = due.into_iter().map(|due| self.look_for(due)).collect();
        stream::iter(looks).buffer_unordered(SESSIONS_AT_ONCE).collect::<()>().await;
    }

    async fn look_for(&self, due: Due) {
        match self.node.authenticator.still_there(&due).await {
            Ok(true) => {}
            Ok(false) => {
                let close = |queue: &crate::delivery::send_queue::SendQueue| queue.close(CloseCode::SessionRevoked);
                self.node.registry.with_queue(&due.user, due.connection, close);
            }
            Err(Unavailable { .. }) => tracing::debug!("a session could not be looked up: the backbone is unavailable"),
        }
    }
}
