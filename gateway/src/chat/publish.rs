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

use super::events::{About, MessageBodies, message_bodies};
use super::lease::Lease;
use super::members::MembersCache;
use super::receipt_events::receipt_events;
use super::usernames::Names;
use crate::backbone::{Append, Backbone, Delivery, DeliveryKind, Durable};
use crate::metrics::Metrics;
use crate::store::{
    CommitSink, CommittedBatch, CommittedEvents, Members, OutboxEvent, PendingRow, Receipt, ReceiptChange, Refusal,
    Store, StoreError, StoredMessage, UnreadMove,
};
use crate::traces::{self, Step};

/// Rows that may wait for publication; more are left to the sweep.
const WAITING_ROWS_MAX: usize = 4096;
/// Deliveries that go to the backbone in one call.
const DELIVERIES_PER_CALL: usize = 4096;
/// Messages of a batch whose deliveries are made at once: ten thousand members each make some 25 MB.
const MESSAGES_PER_PART: usize = 16;
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
    queue: mpsc::Sender<Publication>,
    in_flight: InFlight,
    metrics: Arc<Metrics>,
}

/// Rows that are on their way here: the sweep leaves them alone.
pub type InFlight = Arc<Mutex<HashSet<u64>>>;

enum Publication {
    Batch(CommittedBatch),
    Events(CommittedEvents),
    Ephemeral(Vec<Delivery>),
}

/// The task behind a [`Publisher`].
pub struct PublishTask {
    queue: mpsc::Receiver<Publication>,
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
    /// Takes a committed batch of messages. Called in commit order, before their senders are answered.
    pub fn publish_batch(&self, batch: CommittedBatch) {
        self.hand_over(batch.row, Publication::Batch(batch));
    }

    /// Takes committed durable events.
    pub fn publish_events(&self, committed: CommittedEvents) {
        self.hand_over(committed.row, Publication::Events(committed));
    }

    /// Ephemeral events: gone if they can't be published now.
    pub fn publish_ephemeral(&self, deliveries: Vec<Delivery>) {
        let count = deliveries.len() as u64;
        if count > 0 && self.queue.try_send(Publication::Ephemeral(deliveries)).is_err() {
            self.metrics.dropped_ephemeral.increment(count);
        }
    }

    /// The rows that are on their way.
    #[must_use]
    pub fn in_flight(&self) -> InFlight {
        Arc::clone(&self.in_flight)
    }

    fn hand_over(&self, row: u64, committed: Publication) {
        self.in_flight.lock().insert(row);
        if self.queue.try_send(committed).is_err() {
            self.in_flight.lock().remove(&row);
            self.metrics.publish_failed.increment(1);
        }
    }
}

/// The group commit's sink.
impl CommitSink for Publisher {
    fn messages(&self, committed: CommittedBatch) {
        self.publish_batch(committed);
    }

    fn receipt_events(&self, receipts: &[Receipt], outcomes: &[Result<ReceiptChange, Refusal>]) -> Vec<OutboxEvent> {
        receipt_events(receipts, outcomes)
    }

    fn receipts(&self, committed: CommittedEvents) {
        self.publish_events(committed);
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

    async fn publish_gathered(&mut self, first: Publication) {
        // Let those who are about to hand over do so: fewer, larger writes.
        tokio::task::yield_now().await;
        let mut gathered = PublishBatch::default();
        let mut next = Some(first);
        while let Some(committed) = next {
            let row = committed.row();
            gathered.begun = gathered.begun.into_iter().chain(committed.begun()).min();
            match self.gather(committed, &mut gathered).await {
                Ok(()) => gathered.rows.extend(row),
                Err(reason) => self.leave(row, &reason),
            }
            next = if gathered.deliveries.len() < DELIVERIES_PER_CALL { self.queue.try_recv().ok() } else { None };
        }
        // Its rows are marked, or left, there.
        let _ = self.publish(gathered).await;
    }

    /// Makes deliveries. Those of a large row go out part by part; when one fails, the others still go, and the row is left.
    async fn gather(&mut self, committed: Publication, gathered: &mut PublishBatch) -> Result<(), String> {
        let mut result = Ok(());
        for part in committed.parts() {
            if gathered.deliveries.len() >= DELIVERIES_PER_CALL {
                let rest = PublishBatch { begun: gathered.begun, ..PublishBatch::default() };
                result = result.and(self.publish(std::mem::replace(gathered, rest)).await);
            }
            match self.deliveries(part).await {
                Ok(mut built) => gathered.deliveries.append(&mut built),
                Err(error) => result = Err(error.to_string()),
            }
        }
        result
    }

    async fn publish(&mut self, gathered: PublishBatch) -> Result<(), String> {
        let PublishBatch { mut rows, deliveries, begun } = gathered;
        if begun.is_some_and(|begun| !self.lease.is_held_since(begun)) {
            // This node was paused, or cut off from the store: another may have taken the rows over (NOLOSS.md, A8).
            let reason = "the lease was not held all the time";
            rows.into_iter().for_each(|row| self.leave(Some(row), reason));
            return Err(reason.to_owned());
        }
        let started = Instant::now();
        let messages = messages_of(&deliveries);
        let count = deliveries.len();
        match self.backbone.publish(deliveries).await {
            Ok(_) => {
                self.metrics.publish_seconds.record(started.elapsed());
                if traces::on() {
                    // A message's deliveries stand side by side.
                    let ids = messages.chunk_by(|one, next| one.1 == next.1).filter_map(<[_]>::first);
                    ids.for_each(|(_, message, _)| traces::record(Step::Publish, *message, started, count));
                }
                self.published.append(&mut rows);
                Ok(())
            }
            Err(error) => {
                for (user, message, body) in &messages {
                    (self.direct)(user, *message, body, started);
                }
                let reason = error.to_string();
                rows.into_iter().for_each(|row| self.leave(Some(row), &reason));
                Err(reason)
            }
        }
    }

    async fn deliveries(&self, committed: Publication) -> Result<Vec<Delivery>, StoreError> {
        match committed {
            Publication::Batch(batch) => message_deliveries(&self.directory, &batch.messages, Append::First).await,
            Publication::Events(CommittedEvents { row, events, .. }) => {
                Ok(event_deliveries(row, events, Timestamp::now(), Append::First))
            }
            Publication::Ephemeral(deliveries) => Ok(deliveries),
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

/// What goes to the backbone in one call, and the rows that are published with it.
#[derive(Default)]
struct PublishBatch {
    rows: Vec<u64>,
    deliveries: Vec<Delivery>,
    /// When the first of their commits was begun.
    begun: Option<Instant>,
}

impl Publication {
    /// A large batch in parts, in its order.
    fn parts(self) -> Vec<Self> {
        match self {
            Self::Batch(batch) if batch.messages.len() > MESSAGES_PER_PART => {
                let part = |messages: &[StoredMessage]| CommittedBatch { messages: messages.to_vec(), ..batch };
                batch.messages.chunks(MESSAGES_PER_PART).map(|messages| Self::Batch(part(messages))).collect()
            }
            whole => vec![whole],
        }
    }

    fn row(&self) -> Option<u64> {
        match self {
            Self::Batch(batch) => Some(batch.row),
            Self::Events(committed) => Some(committed.row),
            Self::Ephemeral(_) => None,
        }
    }

    fn begun(&self) -> Option<Instant> {
        match self {
            Self::Batch(batch) => Some(batch.begun),
            Self::Events(committed) => Some(committed.begun),
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

/// A row of many messages in parts that are published one after the other; the row is published when all of them are.
pub(super) fn row_parts(mut row: PendingRow) -> Vec<PendingRow> {
    let mut parts = Vec::new();
    while row.messages.len() > MESSAGES_PER_PART {
        let rest = row.messages.split_off(MESSAGES_PER_PART);
        let messages = std::mem::replace(&mut row.messages, rest);
        parts.push(PendingRow { messages, events: Vec::new(), owner: row.owner.clone(), ..row });
    }
    parts.push(row);
    parts
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
        let MessageBodies { sent, new } = message_bodies(message, &about, count);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_row_goes_out_in_parts_in_its_order() {
        let stored = |n: u64| {
            let message = serde_json::json!({
                "id": n.to_string(), "conversationId": "c", "seq": n, "rev": n, "senderId": "u", "kind": "text",
                "content": "x", "createdAt": "2025-11-21T13:00:00.000Z",
            });
            StoredMessage { message: serde_json::from_value(message).expect("a message"), members_version: 1 }
        };
        let row = |count: u64| PendingRow {
            id: 7,
            owner: "o".into(),
            committed_at: Timestamp::now(),
            messages: (1..=count).map(stored).collect(),
            events: vec![OutboxEvent { users: Vec::new(), body: String::new(), unread: None }],
        };
        for (count, sizes) in [(0, vec![0]), (16, vec![16]), (17, vec![16, 1]), (40, vec![16, 16, 8])] {
            let parts = row_parts(row(count));
            assert_eq!(parts.iter().map(|part| part.messages.len()).collect::<Vec<_>>(), sizes);
            let seqs = parts.iter().flat_map(|part| &part.messages).map(|stored| stored.message.seq);
            assert!(seqs.eq(1..=count) && parts.iter().all(|part| part.id == 7));
            let with_events = parts.iter().position(|part| !part.events.is_empty());
            assert_eq!(with_events, Some(parts.len() - 1), "events follow the messages");
        }
    }
}
