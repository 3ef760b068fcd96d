//! Publishes what was committed, in the order of the commits, and marks it published.
//!
//! One task drains whatever has gathered and hands it to the backbone in one call. What can't be published now is not kept
//! here: its outbox row stays unpublished, and the sweep takes it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use shared::{ConversationKind, Message, MessageId, Timestamp, UserId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::events::{self, About};
use super::lease::Lease;
use super::members::MembersCache;
use super::usernames::Names;
use crate::backbone::{Append, Backbone, Delivery, DeliveryKind, Durable};
use crate::metrics::Metrics;
use crate::store::group_commit::CommittedBatch;
use crate::store::{Members, OutboxEvent, PendingRow, Store, StoreError, StoredMessage, UnreadMove};

/// Rows that may wait for publication; more are left to the sweep.
const WAITING_ROWS_MAX: usize = 4096;
/// Deliveries that go to the backbone in one call.
const DELIVERIES_PER_CALL: usize = 4096;
/// How long a published row waits to be marked together with others.
const MARK_EVERY: Duration = Duration::from_millis(500);
/// Rows that are marked in one call.
const MARK_ROWS: usize = 512;

/// Whom a message goes to, and what its sender is called.
#[derive(Clone)]
pub struct Directory {
    /// Who is in which conversation.
    pub members: Arc<MembersCache>,
    /// What users are called.
    pub names: Arc<Names>,
}

impl Directory {
    /// What the events of a message say of it.
    pub(super) async fn about(&self, message: &Message, members: &Members) -> About {
        match members.kind {
            ConversationKind::Direct => {
                let other = members.list.iter().map(|(user, _)| user).find(|user| **user != message.sender_id);
                About { to: Some(other.unwrap_or(&message.sender_id).clone()), sender_name: None }
            }
            ConversationKind::Group | ConversationKind::Channel => {
                About { to: None, sender_name: self.names.of(&message.sender_id).await }
            }
        }
    }
}

/// Hands over what was committed; cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    queue: mpsc::Sender<Committed>,
    in_flight: InFlight,
    metrics: Arc<Metrics>,
}

/// Rows that are on their way here: the sweep leaves them alone.
pub type InFlight = Arc<Mutex<HashSet<u64>>>;

enum Committed {
    Batch(CommittedBatch),
    Events(u64, Vec<OutboxEvent>),
    Ephemeral(Vec<Delivery>),
}

/// The task behind a [`Publisher`].
pub struct PublishTask {
    queue: mpsc::Receiver<Committed>,
    store: Arc<dyn Store>,
    backbone: Arc<dyn Backbone>,
    directory: Directory,
    in_flight: InFlight,
    metrics: Arc<Metrics>,
    direct: Direct,
    lease: Arc<Lease>,
    published: Vec<u64>,
}

/// Hands a message's event to the sockets of this node, when the backbone can't; told when its publication was begun.
pub type Direct = Box<dyn Fn(&UserId, MessageId, &[u8], Instant) + Send + Sync>;

/// A publisher and the task that does its work.
pub fn publisher(
    store: Arc<dyn Store>,
    backbone: Arc<dyn Backbone>,
    directory: Directory,
    metrics: Arc<Metrics>,
    direct: Direct,
    lease: Arc<Lease>,
) -> (Publisher, PublishTask) {
    let (sender, queue) = mpsc::channel(WAITING_ROWS_MAX);
    let in_flight = InFlight::default();
    let handle = Publisher { queue: sender, in_flight: Arc::clone(&in_flight), metrics: Arc::clone(&metrics) };
    let task =
        PublishTask { queue, store, backbone, directory, in_flight, metrics, direct, lease, published: Vec::new() };
    (handle, task)
}

impl Publisher {
    /// A batch of messages was committed. Called in commit order, before their senders are answered.
    pub fn publish_batch(&self, batch: CommittedBatch) {
        self.hand_over(batch.row, Committed::Batch(batch));
    }

    /// Durable events were committed in the outbox row `row`.
    pub fn publish_events(&self, row: u64, events: Vec<OutboxEvent>) {
        self.hand_over(row, Committed::Events(row, events));
    }

    /// Ephemeral events: gone if they can't be published now.
    pub fn publish_ephemeral(&self, deliveries: Vec<Delivery>) {
        if !deliveries.is_empty() && self.queue.try_send(Committed::Ephemeral(deliveries)).is_err() {
            self.metrics.dropped_ephemeral.increment(1);
        }
    }

    /// The rows that are on their way.
    #[must_use]
    pub fn in_flight(&self) -> InFlight {
        Arc::clone(&self.in_flight)
    }

    fn hand_over(&self, row: u64, committed: Committed) {
        self.in_flight.lock().insert(row);
        if self.queue.try_send(committed).is_err() {
            self.in_flight.lock().remove(&row);
            self.metrics.publish_failed.increment(1);
        }
    }
}

impl PublishTask {
    /// Publishes until `stop`, then what is still waiting.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut mark = tokio::time::interval(MARK_EVERY);
        mark.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                first = self.queue.recv() => match first {
                    Some(first) => self.publish_gathered(first).await,
                    None => break,
                },
                _ = mark.tick() => self.mark().await,
                () = stop.cancelled() => {
                    // `close` lets what is waiting through, then ends the loop.
                    self.queue.close();
                    while let Some(first) = self.queue.recv().await {
                        self.publish_gathered(first).await;
                    }
                    break;
                }
            }
            if self.published.len() >= MARK_ROWS {
                self.mark().await;
            }
        }
        self.mark().await;
    }

    async fn publish_gathered(&mut self, first: Committed) {
        // Let those who are about to hand over do so: fewer, larger writes.
        tokio::task::yield_now().await;
        let mut rows = Vec::new();
        let mut deliveries = Vec::new();
        let mut next = Some(first);
        while let Some(committed) = next {
            let row = committed.row();
            match self.deliveries(committed).await {
                Ok(mut built) => {
                    deliveries.append(&mut built);
                    rows.extend(row);
                }
                Err(error) => self.leave(row, &error.to_string()),
            }
            next = if deliveries.len() < DELIVERIES_PER_CALL { self.queue.try_recv().ok() } else { None };
        }
        if !rows.is_empty() && !self.lease.is_held() {
            // This node was paused, or cut off from the store: another may have taken the rows over (NOLOSS A8).
            rows.into_iter().for_each(|row| self.leave(Some(row), "the lease is not held"));
            return;
        }
        let started = Instant::now();
        let messages = messages_of(&deliveries);
        match self.backbone.publish(deliveries).await {
            Ok(_) => {
                self.metrics.publish_seconds.record(started.elapsed());
                self.published.append(&mut rows);
            }
            Err(error) => {
                for (user, message, body) in &messages {
                    (self.direct)(user, *message, body, started);
                }
                rows.into_iter().for_each(|row| self.leave(Some(row), &error.to_string()));
            }
        }
    }

    async fn deliveries(&self, committed: Committed) -> Result<Vec<Delivery>, StoreError> {
        match committed {
            Committed::Batch(batch) => message_deliveries(&self.directory, &batch.messages, Append::First).await,
            Committed::Events(row, events) => Ok(event_deliveries(row, events, Timestamp::now(), Append::First)),
            Committed::Ephemeral(deliveries) => Ok(deliveries),
        }
    }

    /// Leaves a row to the sweep.
    fn leave(&self, row: Option<u64>, reason: &str) {
        if let Some(row) = row {
            tracing::debug!(row, reason, "a publication is left to the sweep");
            self.metrics.publish_failed.increment(1);
            self.in_flight.lock().remove(&row);
        }
    }

    async fn mark(&mut self) {
        let Some(server) = self.backbone.health().server.filter(|_| !self.published.is_empty()) else { return };
        let rows = std::mem::take(&mut self.published);
        if let Err(error) = self.store.mark_published(&rows, &server).await {
            // The sweep publishes them once more, and the log knows them already.
            tracing::debug!(%error, "rows could not be marked as published");
        }
        let mut in_flight = self.in_flight.lock();
        for row in &rows {
            in_flight.remove(row);
        }
    }
}

/// The deliveries that bring a message, for the case that the backbone is away. Bodies are shared, not copied.
fn messages_of(deliveries: &[Delivery]) -> Vec<(UserId, MessageId, Bytes)> {
    let message = |delivery: &Delivery| match &delivery.kind {
        DeliveryKind::Durable(durable) => Some((delivery.user.clone(), durable.message?, delivery.body.clone())),
        DeliveryKind::Ephemeral => None,
    };
    deliveries.iter().filter_map(message).collect()
}

impl Committed {
    fn row(&self) -> Option<u64> {
        match self {
            Self::Batch(batch) => Some(batch.row),
            Self::Events(row, _) => Some(*row),
            Self::Ephemeral(_) => None,
        }
    }
}

/// What a row that was found unpublished has to deliver.
pub(super) async fn row_deliveries(directory: &Directory, row: PendingRow) -> Result<Vec<Delivery>, StoreError> {
    let mut deliveries = message_deliveries(directory, &row.messages, Append::Once).await?;
    deliveries.append(&mut event_deliveries(row.id, row.events, row.committed_at, Append::Once));
    Ok(deliveries)
}

async fn message_deliveries(
    directory: &Directory,
    messages: &[StoredMessage],
    append: Append,
) -> Result<Vec<Delivery>, StoreError> {
    let mut deliveries = Vec::with_capacity(messages.len() * 2);
    for StoredMessage { message, members_version } in messages {
        let (now, then) = directory.members.audience(&message.conversation_id, *members_version, message.seq).await?;
        let count = then.as_ref().map_or(now.list.len(), Vec::len);
        let about = directory.about(message, &now).await;
        let sent = events::message_sent(message, &about, count);
        let new = events::message_new(message, &about, count);
        let event_id: Arc<str> = format!("m{}", message.id).into();
        // Who has left gets what was said while they were there; it is no longer unread, and wakes nobody.
        let is_member = |user: &UserId| then.is_none() || now.role(user).is_some();
        let delivery = |user: &UserId, body: &Bytes, is_sender: bool| Delivery {
            user: user.clone(),
            body: body.clone(),
            kind: DeliveryKind::Durable(Durable {
                event_id: Arc::clone(&event_id),
                committed_at: message.created_at,
                unread: is_member(user).then(|| UnreadMove {
                    conversation: message.conversation_id.clone(),
                    last_seq: message.seq,
                    seen_seq: if is_sender { message.seq } else { 0 },
                    announce: !is_sender,
                }),
                append,
                message: Some(message.id),
                push: !is_sender && is_member(user),
            }),
        };
        deliveries.push(delivery(&message.sender_id, &sent, true));
        let of_now = then.is_none().then_some(&now.list).into_iter().flatten().map(|(user, _)| user);
        let users = of_now.chain(then.iter().flatten());
        let recipients = users.filter(|user| **user != message.sender_id);
        deliveries.extend(recipients.map(|user| delivery(user, &new, false)));
    }
    Ok(deliveries)
}

fn event_deliveries(row: u64, events: Vec<OutboxEvent>, committed_at: Timestamp, append: Append) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for (place, OutboxEvent { users, body, unread }) in events.into_iter().enumerate() {
        let event_id: Arc<str> = format!("{row}.{place}").into();
        let body = Bytes::from(body);
        deliveries.extend(users.into_iter().map(|user| Delivery {
            user,
            body: body.clone(),
            kind: DeliveryKind::Durable(Durable {
                event_id: Arc::clone(&event_id),
                committed_at,
                unread: unread.clone(),
                append,
                message: None,
                push: false,
            }),
        }));
    }
    deliveries
}
