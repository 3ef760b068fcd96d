//! Publishes what was committed, in the order of the commits, and marks it published.
//!
//! One task drains whatever has gathered and hands it to the backbone in one call. It never waits for the store on behalf of a
//! message: what has to be loaded, and what goes to very many, is held by conversation, and everybody else goes on. What can't
//! be published is not kept here: its outbox row stays unpublished, and the sweep takes it.

mod deliveries;
mod directory;
mod held;
mod marks;
mod publisher;
mod rows;

use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::{ConversationId, MessageId, Timestamp, UserId};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(super) use self::deliveries::{Outgoing, envelope_for, row_deliveries, row_parts};
use self::deliveries::{apart, conversation_of, event_deliveries, message_deliveries, messages_of, opened_deliveries};
use self::directory::Audience;
pub use self::directory::Directory;
use self::held::{Held, Item, Slice};
use self::marks::{Marked, Marks};
use self::publisher::Publication;
pub use self::publisher::{InFlight, Publisher};
use self::rows::{OpenRows, RowState};
use super::lease::Lease;
use crate::backbone::{Backbone, Delivery, TopicEvent};
use crate::metrics::Metrics;
use crate::store::{CommittedBatch, CommittedEvents, Store, StoreError, StoredMessage};
use crate::switches;
use crate::traces::{self, Step};

/// Deliveries that go to the backbone in one call.
const DELIVERIES_PER_CALL: usize = 4096;
/// A message to more recipients goes out in slices, and others go between them.
const AT_ONCE_MAX: usize = 128;
/// Deliveries of what is held that go with one call.
const HELD_PER_CALL: usize = 512;
/// Messages whose audiences are loaded by one query.
const MESSAGES_PER_LOAD: usize = 256;
/// Such queries under way.
const LOADS_MAX: usize = 2;
/// How long a published row waits to be marked together with others: if the node dies, the sweep publishes again what was
/// published in that time.
const MARK_EVERY: Duration = Duration::from_millis(50);

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
    /// What waits for members, or for its turn.
    held: Held,
    loads: JoinSet<Vec<Loaded>>,
    /// Rows of which not everything is published.
    rows: OpenRows,
    /// Rows that are to be marked.
    marks: Marks,
    /// The marking under way, if there is one.
    marking: JoinSet<Vec<Marked>>,
}

/// A message, and whom it goes to.
type Loaded = (StoredMessage, Result<Audience, StoreError>);

/// The way to the sockets of this node, when the backbone can't.
pub struct Direct {
    /// Takes a message's event for a user; told when its publication was begun.
    pub message: DirectMessage,
    /// Takes an event for all members of a large conversation.
    pub topic: DirectTopic,
}

/// Takes a message's event for a user; told when its publication was begun.
pub type DirectMessage = Box<dyn Fn(&UserId, MessageId, &[u8], Instant) + Send + Sync>;

/// Takes an event for all members of a large conversation.
pub type DirectTopic = Box<dyn Fn(&ConversationId, &[u8]) + Send + Sync>;

/// A publisher and the task that does its work.
pub fn publisher(
    store: Arc<dyn Store>,
    backbone: Arc<dyn Backbone>,
    directory: Directory,
    metrics: Arc<Metrics>,
    direct: Direct,
    lease: Arc<Lease>,
) -> (Publisher, PublishTask) {
    let (handle, queue) = Publisher::new(Arc::clone(&metrics));
    let task = PublishTask {
        queue,
        store,
        backbone,
        directory,
        in_flight: handle.in_flight(),
        metrics,
        direct,
        lease,
        held: Held::default(),
        loads: JoinSet::new(),
        rows: OpenRows::default(),
        marks: Marks::default(),
        marking: JoinSet::new(),
    };
    (handle, task)
}

impl PublishTask {
    /// Publishes until `stop`, then what is still waiting.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut mark = tokio::time::interval(MARK_EVERY);
        mark.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut is_stopping = false;
        while !(is_stopping && self.held.is_empty() && self.queue.is_empty()) {
            self.start_loads();
            tokio::select! {
                biased;
                // First, because there may always be something to publish.
                Some(marked) = self.marking.join_next() => self.take_marked(marked),
                _ = mark.tick() => self.start_marking(),
                first = self.queue.recv(), if !self.queue.is_closed() || !self.queue.is_empty() => match first {
                    Some(first) => self.publish_gathered(Some(first)).await,
                    None => is_stopping = true,
                },
                Some(loaded) = self.loads.join_next() => self.take_loaded(loaded),
                () = std::future::ready(()), if self.held.has_turns() => self.publish_gathered(None).await,
                () = stop.cancelled(), if !is_stopping => {
                    // `close` lets what is waiting through, then nothing comes any more.
                    self.queue.close();
                    is_stopping = true;
                }
            }
        }
        while let Some(marked) = self.marking.join_next().await {
            self.take_marked(marked);
        }
        self.start_marking();
        while let Some(marked) = self.marking.join_next().await {
            self.take_marked(marked);
        }
    }

    async fn publish_gathered(&mut self, first: Option<Publication>) {
        // Let those who are about to hand over do so: fewer, larger writes.
        tokio::task::yield_now().await;
        while let Some(loaded) = self.loads.try_join_next() {
            self.take_loaded(loaded);
        }
        let mut gathered = PublishBatch::default();
        let mut next = first.or_else(|| self.queue.try_recv().ok());
        while let Some(publication) = next {
            self.gather(publication, &mut gathered);
            next = if gathered.deliveries.len() < DELIVERIES_PER_CALL { self.queue.try_recv().ok() } else { None };
        }
        self.gather_held(&mut gathered);
        self.publish(gathered).await;
    }

    /// Makes the deliveries of what can go at once; the rest is held, conversation by conversation.
    fn gather(&mut self, publication: Publication, gathered: &mut PublishBatch) {
        match publication {
            Publication::Ephemeral(mut outgoing) => gathered.deliveries.append(&mut outgoing),
            Publication::Batch(CommittedBatch { row, opened, messages, begun }) => {
                self.rows.open(row, begun);
                for direct in &opened {
                    self.directory.members.learn(&direct.id, direct.members());
                }
                gathered.deliveries.append(&mut opened_deliveries(row, &opened));
                for stored in messages {
                    self.gather_message(row, stored, gathered);
                }
                gathered.part(row, begun);
            }
            Publication::Events(CommittedEvents { row, events, begun }) => {
                self.rows.open(row, begun);
                // Events of a conversation don't overtake its messages.
                let behind = (!self.held.is_empty()).then(|| events.iter().filter_map(conversation_of)).into_iter();
                let behind = behind.flatten().find(|conversation| self.held.holds(conversation));
                let mut deliveries = event_deliveries(row, events, Timestamp::now());
                match behind {
                    Some(conversation) => self.hold(row, &conversation, Item::Events(row, deliveries)),
                    None => gathered.deliveries.append(&mut deliveries),
                }
                gathered.part(row, begun);
            }
        }
    }

    fn gather_message(&mut self, row: u64, stored: StoredMessage, gathered: &mut PublishBatch) {
        let audience = self.directory.at_hand(&stored);
        if let Some(audience) = &audience
            && audience.count() <= AT_ONCE_MAX
            && !self.held.holds(&stored.message.conversation_id)
        {
            gathered.deliveries.append(&mut message_deliveries(&stored, audience));
            return;
        }
        let conversation = stored.message.conversation_id.clone();
        let item = match audience {
            Some(audience) => Item::Ready(row, stored, Box::new(audience)),
            None => Item::Cold(row, stored),
        };
        self.hold(row, &conversation, item);
    }

    fn hold(&mut self, row: u64, conversation: &ConversationId, item: Item) {
        self.rows.expect(row);
        if !self.held.push(conversation, item) {
            self.rows.fail(row);
            self.end_part(row);
        }
    }

    /// Adds a slice of what is held.
    fn gather_held(&mut self, gathered: &mut PublishBatch) {
        let make = |stored: &StoredMessage, audience: &Audience| message_deliveries(stored, audience);
        for Slice { row, mut deliveries, ends } in self.held.take(HELD_PER_CALL, make) {
            gathered.deliveries.append(&mut deliveries);
            match ends {
                Some(true) => gathered.parts.push(row),
                Some(false) => gathered.slices.push(row),
                None => {
                    self.rows.fail(row);
                    self.end_part(row);
                }
            }
            gathered.goes_back_to(self.rows.begun(row));
        }
    }

    /// Asks the store about conversations that are cold: for all of them at once, and never in anybody's way.
    fn start_loads(&mut self) {
        while self.loads.len() < LOADS_MAX {
            let messages = self.held.take_unloaded(MESSAGES_PER_LOAD);
            if messages.is_empty() {
                return;
            }
            let directory = self.directory.clone();
            self.loads.spawn(async move {
                let audiences = directory.load(&messages).await;
                messages.into_iter().zip(audiences).collect()
            });
        }
    }

    fn take_loaded(&mut self, loaded: Result<Vec<Loaded>, tokio::task::JoinError>) {
        let Ok(loaded) = loaded else {
            tracing::error!("loading members ended by a fault of the server; the sweep publishes what waits for them");
            return self.held.fail_unloaded();
        };
        for (stored, audience) in loaded {
            if let Err(error) = &audience {
                tracing::debug!(%error, "the members of a conversation could not be loaded");
            }
            self.held.loaded(&stored, audience.ok());
        }
    }

    async fn publish(&mut self, gathered: PublishBatch) {
        let PublishBatch { parts, slices, deliveries, begun } = gathered;
        // A row counts as published under the server that was there before its publication.
        let server = self.backbone.health().server;
        slices.iter().chain(&parts).for_each(|row| self.rows.publishes_under(*row, server.as_ref()));
        let result = self.publish_deliveries(deliveries, begun).await;
        if let Err(reason) = &result {
            tracing::debug!(reason, "publications are left to the sweep");
            slices.iter().chain(&parts).for_each(|row| self.rows.fail(*row));
        }
        parts.into_iter().for_each(|row| self.end_part(row));
    }

    async fn publish_deliveries(&mut self, outgoing: Vec<Outgoing>, begun: Option<Instant>) -> Result<(), String> {
        if begun.is_some_and(|begun| !self.lease.is_held_since(begun)) {
            // This node was paused, or cut off from the store: another may have taken the rows over (NOLOSS.md, A8).
            return Err("the lease was not held all the time".to_owned());
        }
        let since = self.backbone.connected_since().filter(|_| !switches::off("same-connection"));
        if since.zip(begun).is_some_and(|(since, begun)| since > begun) {
            // Another may have fenced this node off and taken the rows over, whatever the leases say (NOLOSS.md, C9).
            return Err("the connection was made after the commit began".to_owned());
        }
        let (deliveries, topics) = apart(outgoing);
        let (to_users, to_all) = tokio::join!(self.publish_to_users(deliveries), self.publish_to_all(topics));
        to_users.and(to_all)
    }

    /// Publishes to all members of large conversations. While the backbone is away, this node's members get it all the same:
    /// the `rev` keeps it from coming twice.
    async fn publish_to_all(&self, topics: Vec<TopicEvent>) -> Result<(), String> {
        if topics.is_empty() {
            return Ok(());
        }
        let result = self.backbone.publish_topics(&topics).await;
        if result.is_err() {
            topics.iter().for_each(|TopicEvent { conversation, body, .. }| (self.direct.topic)(conversation, body));
        }
        result.map_err(|error| error.to_string())
    }

    async fn publish_to_users(&self, deliveries: Vec<Delivery>) -> Result<(), String> {
        if deliveries.is_empty() {
            return Ok(());
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
                Ok(())
            }
            Err(error) => {
                for (user, message, body) in &messages {
                    (self.direct.message)(user, *message, body, started);
                }
                Err(error.to_string())
            }
        }
    }

    /// A part of a row is done with. When it was the last, the row is marked, or left to the sweep.
    fn end_part(&mut self, row: u64) {
        match self.rows.end_part(row) {
            RowState::Open => {}
            RowState::Published(server) => {
                if !self.marks.push(row, server) {
                    self.in_flight.lock().remove(&row);
                }
            }
            RowState::Failed => {
                self.metrics.publish_failed.increment(1);
                self.in_flight.lock().remove(&row);
            }
        }
    }

    /// Marks what waits for it, unless some are being marked.
    fn start_marking(&mut self) {
        if self.marking.is_empty() && !self.marks.is_empty() {
            self.marking.spawn(self.marks.mark_all(&self.store));
        }
    }

    fn take_marked(&mut self, marked: Result<Vec<Marked>, tokio::task::JoinError>) {
        let Ok(marked) = marked else {
            return tracing::error!(
                "marking rows ended by a fault of the server; they are published again after a restart"
            );
        };
        for marked in marked {
            let done = self.marks.settle(marked);
            let mut in_flight = self.in_flight.lock();
            for row in &done {
                in_flight.remove(row);
            }
        }
    }
}

/// What goes to the backbone in one call.
#[derive(Default)]
struct PublishBatch {
    /// Rows of which a part ends with this call, once for each part.
    parts: Vec<u64>,
    /// Rows of which something goes with it.
    slices: Vec<u64>,
    deliveries: Vec<Outgoing>,
    /// When the first of their commits was begun.
    begun: Option<Instant>,
}

impl PublishBatch {
    fn part(&mut self, row: u64, begun: Instant) {
        self.parts.push(row);
        self.goes_back_to(Some(begun));
    }

    /// A commit that was begun at that time is among them.
    fn goes_back_to(&mut self, begun: Option<Instant>) {
        self.begun = self.begun.into_iter().chain(begun).min();
    }
}
