//! Upkeep: one node at a time empties deleted conversations, goes on with erasures, and ends what is kept only for a
//! time. It goes in small steps with pauses between, so that nobody waits for it.

use std::time::{Duration, Instant};

use shared::{ConversationId, ProtocolError};
use tokio_util::sync::CancellationToken;

use super::Chat;
use crate::clock::every;
use crate::store::StoreError;

/// How often there may be something to do.
const EVERY: Duration = Duration::from_secs(5);
/// How long a node does the upkeep before it asks again whether it may.
const TURN: Duration = Duration::from_secs(10);
/// How long the upkeep stays with a node that asks no more, in milliseconds: a step more than a turn.
const LEASE_MS: u64 = 30_000;
/// The pause behind each round of steps, at least.
const PAUSE: Duration = Duration::from_millis(50);
/// The pause is so many times the round: where the store is slow, the upkeep takes no larger part of it.
const PAUSES_PER_ROUND: u32 = 4;
/// The pause behind a walk over all conversations.
const REST: Duration = Duration::from_secs(3600);
const DAY_MS: u64 = 86_400_000;

/// How long things are kept, in days; 0: for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Messages.
    pub message_days: u32,
    /// Lines of the audit trail.
    pub audit_days: u32,
}

/// Where the walk over all conversations is.
#[derive(Debug, Default)]
struct Walk {
    after: Option<ConversationId>,
    rests_until: Option<Instant>,
}

impl Chat {
    /// Does what is due, until `stop`.
    pub async fn keep_up_until(&self, retention: Retention, stop: CancellationToken) {
        let mut walk = Walk::default();
        let mut ticks = every(EVERY, stop.clone());
        while ticks.next().await {
            let turn = async {
                if self.store.take_upkeep(&self.owner, LEASE_MS).await? {
                    self.keep_up(retention, &mut walk).await?;
                }
                Ok::<(), ProtocolError>(())
            };
            let done = tokio::select! {
                done = turn => done,
                () = stop.cancelled() => return,
            };
            if let Err(error) = done {
                tracing::debug!(error = %error.message, "the upkeep of the store waits");
            }
        }
    }

    /// Goes on until nothing is due, or the turn ends.
    async fn keep_up(&self, retention: Retention, walk: &mut Walk) -> Result<(), ProtocolError> {
        let begun = Instant::now();
        let mut is_due = true;
        while is_due && begun.elapsed() < TURN {
            let round = Instant::now();
            is_due = self.store.empty_deleted().await?;
            is_due |= self.cross_due().await?;
            is_due |= self.go_on_erasing().await?;
            is_due |= self.expire_audit(retention.audit_days).await?;
            is_due |= self.expire_messages(retention.message_days, walk).await?;
            tokio::time::sleep(PAUSE.max(round.elapsed() * PAUSES_PER_ROUND)).await;
        }
        Ok(())
    }

    async fn expire_audit(&self, days: u32) -> Result<bool, StoreError> {
        if days == 0 {
            return Ok(false);
        }
        self.store.expire_audit(u64::from(days) * DAY_MS).await
    }

    async fn expire_messages(&self, days: u32, walk: &mut Walk) -> Result<bool, StoreError> {
        let rests = walk.rests_until.is_some_and(|until| Instant::now() < until);
        if days == 0 || rests {
            return Ok(false);
        }
        let step = self.store.expire_messages(u64::from(days) * DAY_MS, walk.after.as_ref()).await?;
        *walk = match step.is_last {
            true => Walk { after: None, rests_until: Some(Instant::now() + REST) },
            false => Walk { after: step.after, rests_until: None },
        };
        Ok(!step.is_last)
    }
}
