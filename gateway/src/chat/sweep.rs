//! The sweep: publishes rows that were committed but not published, of this node and of nodes that are gone.
//!
//! A row stays unpublished after a commit whose answer was lost, while the backbone is away, and if a node dies between
//! commit and publish (NOLOSS.md, A9, A10). Publishing twice does no harm: the log recognises an event by its id.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::lease::LEASE;
use super::{Chat, publish};
use crate::backbone::Delivery;
use crate::clock::every;
use crate::store::{PendingRow, StoreError};
use crate::switches;

/// How often a node looks for rows.
const SWEEP_EVERY: Duration = Duration::from_secs(2);
/// Rows younger than this may still be in flight.
const ROW_AGE_MS: u64 = 5_000;
/// Rows taken at once.
const ROWS_PER_SWEEP: u32 = 128;
/// Deliveries that are published in one call.
const DELIVERIES_PER_CALL: usize = 1024;
/// How often a node that the others have left behind connects anew.
const CONNECT_ANEW_EVERY: Duration = Duration::from_secs(10);
/// How long a published row is kept.
const KEEP_MS: u64 = 60_000;

impl Chat {
    /// Beats the lease and sweeps until `stop`. A long sweep doesn't hold up the beat.
    pub async fn sweep_until(&self, stop: CancellationToken) {
        tokio::join!(self.lease.keep(&*self.store, &self.owner, stop.clone()), self.sweep_often(stop));
    }

    async fn sweep_often(&self, stop: CancellationToken) {
        let mut ticks = every(SWEEP_EVERY, stop.clone());
        while ticks.next().await {
            if let Err(error) = self.sweep(&stop).await {
                tracing::debug!(%error, "the sweep failed; it runs again in 2 s");
            }
        }
    }

    async fn sweep(&self, stop: &CancellationToken) -> Result<(), StoreError> {
        let is_current = self.follow_server().await?;
        let age_ms = self.store.outbox_age_ms().await?;
        self.metrics.outbox_age_seconds.set(Duration::from_millis(age_ms).as_secs_f64());
        if is_current && !switches::off("sweep") && age_ms >= ROW_AGE_MS && self.backbone.health().ready {
            let mut rows = 0;
            loop {
                let (done, more) = self.redo().await?;
                rows += done;
                if !more || stop.is_cancelled() {
                    break;
                }
            }
            if rows > 0 {
                tracing::info!(rows, "published rows that had been committed but not published");
            }
        }
        self.store.prune_outbox(KEEP_MS).await.map(drop)
    }

    /// Whether the backbone's server is the one where the other nodes are. If not, this node is cut off from them: it leaves
    /// its rows to them, is not ready, and connects anew from time to time (NOLOSS.md, A2).
    async fn follow_server(&self) -> Result<bool, StoreError> {
        let Some(server) = self.backbone.health().server else { return Ok(true) };
        let is_retired = self.store.is_backbone_retired(&server).await?;
        self.lease.leave(is_retired);
        if !is_retired {
            self.left_behind.lock().take();
            self.adopt_server(server).await?;
            return Ok(true);
        }
        let mut left_behind = self.left_behind.lock();
        if left_behind.is_none() {
            tracing::warn!(
                server = &*server,
                "the other nodes have left this Redis server; this node is not ready and reconnects"
            );
        }
        if left_behind.is_none_or(|at| at.elapsed() >= CONNECT_ANEW_EVERY) {
            *left_behind = Some(Instant::now());
            self.backbone.leave_server();
        }
        Ok(false)
    }

    /// Whether the other nodes have left the backbone's server for another.
    pub fn is_left_behind(&self) -> bool {
        self.left_behind.lock().is_some()
    }

    /// Follows the backbone to another server. Rows that were published under the old one are not published again:
    /// every log has a new epoch there, and a client that resumes with the old epoch gets `resync`.
    async fn adopt_server(&self, server: Arc<str>) -> Result<(), StoreError> {
        if self.adopted.lock().as_ref() == Some(&server) {
            return Ok(());
        }
        if let Some(previous) = self.store.adopt_backbone(&server).await? {
            tracing::info!(server = &*server, previous, "the backbone is another server");
            self.backbone.note_new_server();
        }
        let mut after = 0;
        loop {
            let rows = self.store.published_elsewhere(&server, after, ROWS_PER_SWEEP).await?;
            let rows: Vec<u64> = rows.iter().map(|row| row.id).collect();
            let Some(last) = rows.last() else { break };
            after = *last;
            self.store.mark_published(&rows, &server).await?;
        }
        *self.adopted.lock() = Some(server);
        Ok(())
    }

    /// Publishes one portion of old rows: how many, and whether there may be more.
    async fn redo(&self) -> Result<(usize, bool), StoreError> {
        let asked = Instant::now();
        let lease_ms = u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
        let rows = self.store.take_unpublished(&self.owner, lease_ms, ROW_AGE_MS, ROWS_PER_SWEEP).await?;
        let taken = rows.len();
        if !self.fence_owners(&rows).await || !self.lease.is_held_since(asked) {
            return Ok((0, false));
        }
        let in_flight = self.publisher.in_flight();
        let mut done = Vec::with_capacity(taken);
        let (mut gathered, mut count) = (Vec::new(), 0);
        let mut rows = rows.into_iter().filter(|row| !in_flight.lock().contains(&row.id)).peekable();
        while let Some(row) = rows.next() {
            let id = row.id;
            let mut parts = publish::row_parts(row);
            let Some(last) = parts.pop() else { continue };
            if !parts.is_empty() {
                // Older rows go first.
                if !self.publish_rows(std::mem::take(&mut gathered), &mut done).await {
                    break;
                }
                count = 0;
                if !self.publish_parts(parts).await? {
                    continue;
                }
            }
            let deliveries = publish::row_deliveries(&self.directory, last).await?;
            count += deliveries.len();
            gathered.push((id, deliveries));
            if count < DELIVERIES_PER_CALL && rows.peek().is_some() {
                continue;
            }
            count = 0;
            if !self.publish_rows(std::mem::take(&mut gathered), &mut done).await {
                tracing::debug!("the sweep waits for the backbone");
                break;
            }
        }
        let more = taken == usize::try_from(ROWS_PER_SWEEP).unwrap_or(0) && done.len() == taken;
        if let Some(server) = self.backbone.health().server.filter(|_| !done.is_empty()) {
            self.metrics.redone.increment(u64::try_from(done.len()).unwrap_or(0));
            self.store.mark_published(&done, &server).await?;
        }
        Ok((done.len(), more))
    }

    /// Publishes the first parts of a large row, one after the other, so that no more than one's deliveries are held at once.
    /// Whether the row can go on; if not, it stays unpublished.
    async fn publish_parts(&self, parts: Vec<PendingRow>) -> Result<bool, StoreError> {
        for part in parts {
            let row = part.id;
            let deliveries = publish::row_deliveries(&self.directory, part).await?;
            if let Err(error) = self.backbone.publish(deliveries).await {
                tracing::warn!(row, %error, "a part of an outbox row could not be published");
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Publishes rows together, or, if that fails while the backbone is there, each alone: one that can't be published must
    /// not hold up the others. Whether to go on.
    async fn publish_rows(&self, rows: Vec<(u64, Vec<Delivery>)>, done: &mut Vec<u64>) -> bool {
        let all = rows.iter().flat_map(|(_, deliveries)| deliveries.iter().cloned()).collect();
        if self.backbone.publish(all).await.is_ok() {
            done.extend(rows.into_iter().map(|(id, _)| id));
            return true;
        }
        for (id, deliveries) in rows {
            if !self.backbone.health().ready || switches::off("rows-one-by-one") {
                return false;
            }
            match self.backbone.publish(deliveries).await {
                Ok(_) => done.push(id),
                Err(error) => tracing::warn!(row = id, %error, "an outbox row could not be published"),
            }
        }
        true
    }

    /// Ends the connections of owners that are gone, so that no command of theirs runs after their rows were published
    /// again (NOLOSS.md, A7). Returns whether all of them are fenced off. The others are tried again before any other
    /// row is published.
    async fn fence_owners(&self, rows: &[PendingRow]) -> bool {
        let owners = {
            let mut unfenced = self.unfenced.lock();
            let others = rows.iter().map(|row| &row.owner).filter(|owner| **owner != *self.owner);
            unfenced.extend(others.cloned());
            unfenced.clone()
        };
        for owner in owners {
            if let Err(error) = self.backbone.fence(&owner).await {
                tracing::warn!(owner, %error, "a dead node could not be fenced off; its rows wait");
                return false;
            }
            self.unfenced.lock().remove(&owner);
        }
        true
    }
}
