//! The sweep: publishes rows that were committed but not published, of this node and of nodes that are gone.
//!
//! A row stays unpublished after a commit whose answer was lost, while the backbone is away, and if a node dies between
//! commit and publish (NOLOSS.md, A9, A10). Publishing twice does no harm: the log recognises an event by its id, and where it
//! can't, a marker takes the event's place (NOLOSS.md, C1).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use shared::{MessageId, NotificationId, Timestamp, UserId};
use tokio_util::sync::CancellationToken;

use super::lease::LEASE;
use super::publish::Outgoing;
use super::{Chat, publish};
use crate::backbone::{BackboneError, DeliveryOutcome};
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
const DELIVERIES_PER_CALL: usize = 4096;
/// How often a node that the others have left behind connects anew.
const CONNECT_ANEW_EVERY: Duration = Duration::from_secs(10);
/// Notifications among which those are looked for that a marker names.
const NOTIFICATIONS_READ: u32 = 100;
/// How far this node's clock and the store's may be apart, in milliseconds: in doubt a notification is younger.
const CLOCKS_APART_MS: i64 = 5_000;
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
            let (mut rows, mut after) = (0, Some(0));
            while let Some(from) = after.filter(|_| !stop.is_cancelled()) {
                let (done, last) = self.redo(from).await?;
                rows += done;
                after = last;
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

    /// Publishes one portion of old rows, those after row `after`: how many were done with, and the last row if there may be
    /// more.
    async fn redo(&self, after: u64) -> Result<(usize, Option<u64>), StoreError> {
        let asked = Instant::now();
        // A row counts as published under the server that was there before its publication.
        let Some(server) = self.backbone.health().server else { return Ok((0, None)) };
        let lease_ms = u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
        let page = (after, ROWS_PER_SWEEP);
        let rows = self.store.take_unpublished(&self.owner, lease_ms, ROW_AGE_MS, page).await?;
        let last = rows.last().map(|row| row.id).filter(|_| rows.len() == usize::try_from(ROWS_PER_SWEEP).unwrap_or(0));
        if !self.fence_owners(&rows).await || !self.lease.is_held_since(asked) {
            return Ok((0, None));
        }
        let in_flight = self.publisher.in_flight();
        let mut redone = Redone::default();
        let mut gathered = Vec::new();
        for row in rows.into_iter().filter(|row| !in_flight.lock().contains(&row.id)) {
            redone.begin(&row);
            for part in publish::row_parts(row) {
                let id = part.id;
                let deliveries = publish::row_deliveries(&self.directory, part).await?;
                gathered.extend(deliveries.into_iter().map(|delivery| (id, delivery)));
                if gathered.len() >= DELIVERIES_PER_CALL {
                    self.publish_again(&mut gathered, &mut redone, asked).await;
                }
            }
        }
        self.publish_again(&mut gathered, &mut redone, asked).await;
        self.metrics.markers.increment(redone.markers);
        let (done, narrowed) = redone.rows();
        if !done.is_empty() {
            self.metrics.redone.increment(u64::try_from(done.len()).unwrap_or(0));
            self.store.mark_published(&done, &server).await?;
        }
        for (row, lacking) in narrowed {
            self.store.narrow(row, &lacking).await?;
        }
        Ok((done.len(), last))
    }

    /// Publishes what was gathered, as much as possible in one call: each call reads a user's log once. If this node was
    /// paused or fenced off since it `asked` for the rows, others have taken them over.
    async fn publish_again(&self, gathered: &mut Vec<(u64, Outgoing)>, redone: &mut Redone, asked: Instant) {
        while !gathered.is_empty() {
            let count = gathered.len().min(DELIVERIES_PER_CALL);
            let portion = gathered.drain(..count);
            if !self.lease.is_held_since(asked) || self.backbone.connected_since().is_none_or(|since| since > asked) {
                portion.for_each(|(row, _)| redone.fail(row));
                continue;
            }
            let (mut rows, mut deliveries) = (Vec::with_capacity(count), Vec::with_capacity(count));
            let (mut of_topics, mut topics) = (Vec::new(), Vec::new());
            for (row, outgoing) in portion {
                match outgoing {
                    Outgoing::User(delivery) => (rows.push(row), deliveries.push(delivery)),
                    Outgoing::Topic(event) => (of_topics.push(row), topics.push(event)),
                };
            }
            // A large conversation's events are known by their `rev`: publishing one again does no harm.
            if let Err(error) = self.backbone.publish_topics(&topics).await {
                tracing::debug!(%error, "the sweep waits for the backbone");
                of_topics.into_iter().for_each(|row| redone.fail(row));
            }
            let users: Vec<UserId> = deliveries.iter().map(|delivery| delivery.user.clone()).collect();
            match self.backbone.redo(deliveries).await {
                Ok(outcomes) => {
                    for ((row, user), outcome) in rows.into_iter().zip(users).zip(outcomes) {
                        redone.note(row, user, &outcome);
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "the sweep waits for the backbone");
                    rows.into_iter().for_each(|row| redone.fail(row));
                }
            }
        }
    }

    /// Messages that a marker in this user's log stands for, for sockets that can't fetch them: each with the time since its
    /// commit, and its event's envelope. Those that were deleted meanwhile are left out.
    pub async fn marked_messages(
        &self,
        user: &UserId,
        messages: &[MessageId],
    ) -> Result<Vec<(MessageId, Duration, Bytes)>, StoreError> {
        let mut marked = Vec::with_capacity(messages.len());
        for (stored, age_ms) in self.store.stored(messages).await? {
            if stored.message.deleted_at.is_none() {
                let envelope = publish::envelope_for(&self.directory, user, &stored).await?;
                marked.push((stored.message.id, Duration::from_millis(age_ms), envelope));
            }
        }
        marked.sort_by_key(|(id, ..)| messages.iter().position(|message| message == id));
        Ok(marked)
    }

    /// The same for kept notifications. The store is asked for the newest ones; older ones are read by the client.
    pub async fn marked_notifications(
        &self,
        user: &UserId,
        notifications: &[NotificationId],
    ) -> Result<Vec<(NotificationId, Duration, Bytes)>, StoreError> {
        if notifications.is_empty() {
            return Ok(Vec::new());
        }
        let newest = self.store.notifications(user, 0, NOTIFICATIONS_READ).await?;
        let named = newest.into_iter().rev().filter(|kept| notifications.contains(&kept.id));
        let marked = named.map(|kept| {
            let age_ms = Timestamp::now().unix_ms() - kept.created_at.unix_ms() - CLOCKS_APART_MS;
            let age = Duration::from_millis(u64::try_from(age_ms).unwrap_or(0));
            (kept.id, age, Bytes::from(format!(r#"{{"type":"notification","payload":{}}}"#, kept.payload)))
        });
        Ok(marked.collect())
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

/// What became of the rows of one portion.
#[derive(Default)]
struct Redone {
    rows: BTreeMap<u64, RedoneRow>,
    markers: u64,
}

/// What became of one row.
#[derive(Default)]
struct RedoneRow {
    /// The recipients who lacked something of it before, if not all did.
    lacked: Option<usize>,
    lacking: BTreeSet<UserId>,
    /// Somebody has everything now.
    has_reached: bool,
    /// Nobody knows who lacks what.
    has_failed: bool,
}

impl Redone {
    fn begin(&mut self, row: &PendingRow) {
        let lacked = row.lacking.as_ref().map(Vec::len);
        self.rows.insert(row.id, RedoneRow { lacked, ..RedoneRow::default() });
    }

    fn note(&mut self, row: u64, user: UserId, outcome: &Result<DeliveryOutcome, BackboneError>) {
        let Some(row) = self.rows.get_mut(&row) else { return };
        match outcome {
            Ok(DeliveryOutcome::Marked(_)) => {
                self.markers += 1;
                row.has_reached = true;
            }
            Ok(DeliveryOutcome::To(_) | DeliveryOutcome::Again(_)) => row.has_reached = true,
            Err(error) => {
                tracing::debug!(%error, "something of an outbox row could not be published");
                row.lacking.insert(user);
            }
        }
    }

    fn fail(&mut self, row: u64) {
        if let Some(row) = self.rows.get_mut(&row) {
            row.has_failed = true;
        }
    }

    /// The rows that are done with, and those that fewer recipients lack than before.
    fn rows(self) -> (Vec<u64>, Vec<(u64, Vec<UserId>)>) {
        let (mut done, mut narrowed) = (Vec::new(), Vec::new());
        for (id, row) in self.rows.into_iter().filter(|(_, row)| !row.has_failed) {
            let is_less = row.lacked.map_or(row.has_reached, |lacked| row.lacking.len() < lacked);
            if row.lacking.is_empty() {
                done.push(id);
            } else if is_less && !switches::off("narrow") {
                narrowed.push((id, row.lacking.into_iter().collect()));
            }
        }
        (done, narrowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_narrowed_to_those_who_lack_it() {
        let user = |name: &str| UserId::parse(name).expect("an id");
        let row = |id, lacking: Option<&[&str]>| PendingRow {
            id,
            owner: "o".into(),
            committed_at: Timestamp::now(),
            messages: Vec::new(),
            events: Vec::new(),
            opened: Vec::new(),
            lacking: lacking.map(|users| users.iter().map(|name| user(name)).collect()),
        };
        let mut redone = Redone::default();
        let fault = || Err(BackboneError("away".to_owned()));
        for (id, lacking) in [(1, None), (2, None), (3, Some(&["a", "b"][..])), (4, Some(&["a"][..])), (5, None)] {
            redone.begin(&row(id, lacking));
        }
        for (id, name, outcome) in [
            (1, "a", Ok(DeliveryOutcome::To(1))),
            (1, "b", Ok(DeliveryOutcome::Marked(0))),
            (2, "a", Ok(DeliveryOutcome::Again(1))),
            (2, "b", fault()),
            (2, "b", Ok(DeliveryOutcome::To(1))),
            (3, "a", fault()),
            (3, "b", Ok(DeliveryOutcome::To(1))),
            (4, "a", fault()),
        ] {
            redone.note(id, user(name), &outcome);
        }
        redone.fail(5);
        assert_eq!(redone.markers, 1);
        assert_eq!(redone.rows(), (vec![1], vec![(2, vec![user("b")]), (3, vec![user("a")])]));
    }
}
