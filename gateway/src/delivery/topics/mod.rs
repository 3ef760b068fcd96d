//! Large conversations on this node: a task for each that a socket here belongs to, with the conversation's last events.
//!
//! Offers [`Topics`]: events go in, and sockets come and go. It never publishes, holds no list of members, and what it
//! loses it reads from the store.

mod ahead;
mod entrance;
mod history;
mod inlet;
mod keeper;
mod members;
mod serving;
mod shown;
mod sockets;
mod sources;
mod table;
mod unread;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use shared::{ConversationId, UserId};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::inlet::{Inlet, Join, Move, Notice};
use self::keeper::Keeper;
use self::table::Table;
use crate::backbone::BackboneError;
use crate::delivery::envelope::{TopicNotice, TopicPayload, Turn};
use crate::delivery::registry::Registry;
use crate::delivery::send_queue::SendQueue;
use crate::metrics::Metrics;
use crate::switches;

pub use self::inlet::Wish;
pub use self::sources::{Head, LargeStore, Missed, MissedRow, Own, Sources};

/// How often all conversations here are compared with the store.
const CHECK_EVERY: Duration = Duration::from_secs(10);
/// How soon that is tried again after the subscriptions were made anew.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How long an event that the store knows may be on its way, before it counts as lost.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

/// The large conversations of this node's sockets.
pub struct Topics {
    /// Whether conversations become large at all.
    is_on: bool,
    /// Set once the backbone is there, until the node ends.
    sources: Mutex<Option<Arc<Sources>>>,
    table: Arc<Table>,
    tasks: TaskTracker,
    /// The subscriptions were made anew.
    resubscribed: Notify,
}

impl Topics {
    /// No conversations yet.
    #[must_use]
    pub fn new(is_on: bool, registry: Arc<Registry>, metrics: Arc<Metrics>) -> Self {
        let table = Arc::new(Table { registry, metrics, inlets: Mutex::default() });
        Self { is_on, sources: Mutex::new(None), table, tasks: TaskTracker::new(), resubscribed: Notify::new() }
    }

    /// Whether conversations become large.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// The backbone and the store are there. Sockets join only from here on.
    pub fn open(&self, sources: Sources) {
        *self.sources.lock() = Some(Arc::new(sources));
    }

    /// Ends all tasks.
    pub async fn close(&self) {
        self.sources.lock().take();
        let inlets: Vec<Arc<Inlet>> = self.table.inlets.lock().values().cloned().collect();
        inlets.iter().for_each(|inlet| inlet.add(|gathered| gathered.is_closed = true));
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// An event of a large conversation; false if it is none.
    pub fn event(&self, conversation: &str, payload: &[u8]) -> bool {
        let Ok(conversation) = ConversationId::parse(conversation) else { return false };
        let inlet = self.inlet(&conversation);
        if let Some(TopicPayload { rev, .. }) = TopicPayload::parse(payload) {
            inlet.iter().for_each(|inlet| inlet.event(rev, payload));
            return true;
        }
        let Some(TopicNotice { kind, envelope, except }) = TopicNotice::parse(payload) else { return false };
        if let Some(inlet) = inlet {
            self.table.metrics.event(&kind);
            let notice = Notice { envelope: Bytes::copy_from_slice(envelope), except };
            self.table.metrics.dropped_ephemeral.increment(u64::from(!inlet.notice(notice)));
        }
        true
    }

    /// Events of this conversation may be missing.
    pub fn doubt(&self, conversation: &str) {
        let conversation = ConversationId::parse(conversation).ok();
        if let Some(inlet) = conversation.and_then(|conversation| self.inlet(&conversation)) {
            inlet.add(|gathered| gathered.is_doubtful = true);
        }
    }

    /// A socket is to be given a conversation's events from a place on. Nothing happens if it is given them already.
    pub fn join(&self, conversation: &ConversationId, user: &UserId, queue: Arc<SendQueue>, wish: Wish) {
        let Some(sources) = self.sources.lock().clone() else { return };
        // Flat frames have no place: their history has the rest.
        let wish = if queue.wire().dialect.is_flat() { Wish::Now } else { wish };
        let mut inlets = self.table.inlets.lock();
        let inlet = inlets.entry(conversation.clone()).or_insert_with(|| {
            let inlet = Arc::new(Inlet::default());
            let keeper = Keeper::new(conversation.clone(), Arc::clone(&inlet), sources, Arc::clone(&self.table));
            self.tasks.spawn(keeper.run());
            inlet
        });
        let join = Join { user: user.clone(), queue, wish, reads: 0 };
        inlet.add(|gathered| gathered.moves.push(Move::Join(join)));
        #[expect(clippy::cast_precision_loss, reason = "a node has far fewer than 2^52 conversations")]
        self.table.metrics.topics.set(inlets.len() as f64);
    }

    /// Events of any conversation may be missing: all are compared with the store at once.
    pub fn doubt_all(&self) {
        self.resubscribed.notify_one();
    }

    /// Compares all conversations here with the store every 10 s, and at once after [`Topics::doubt_all`], until `stop`.
    pub async fn keep_checked(&self, stop: CancellationToken) {
        let mut is_urgent = false;
        loop {
            let pause = if is_urgent { AGAIN_AFTER } else { CHECK_EVERY };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.resubscribed.notified() => is_urgent = true,
                () = stop.cancelled() => return,
            }
            if switches::off("topic-check") {
                continue;
            }
            match self.check(is_urgent).await {
                Ok(()) => is_urgent = false,
                Err(error) => tracing::debug!(%error, "large conversations could not be compared with the store"),
            }
        }
    }

    /// These sockets of a user have passed an event of their log that changes which way a conversation comes to them.
    pub fn turn(&self, user: &str, turn: &Turn, queues: Vec<Arc<SendQueue>>) {
        let Ok(user) = UserId::parse(user) else { return };
        match turn {
            Turn::Large { conversation, place, joins } => {
                let wish = if *joins { Wish::Told(*place) } else { Wish::From(*place) };
                queues.into_iter().for_each(|queue| self.join(conversation, &user, queue, wish));
            }
            // Whatever was published until then is read before the members are left to their logs.
            Turn::Small(conversation) => self.doubt(conversation.as_str()),
            Turn::Left(conversation) => {
                if let Some(inlet) = self.inlet(conversation) {
                    inlet.moved(&queues, Move::Leave);
                }
            }
        }
    }

    /// The log of a user with sockets here was begun anew, or trimmed: what it said of their coming and going may be lost.
    pub fn refresh(self: &Arc<Self>, user: &str) {
        let Ok(user) = UserId::parse(user) else { return };
        if !self.is_on {
            return;
        }
        let topics = Arc::clone(self);
        self.tasks.spawn(async move {
            while topics.sources.lock().is_some() {
                let here = topics.table.inlets.lock().keys().cloned().collect();
                let queues = topics.table.registry.queues_of(&user);
                match topics.settle(&user, &queues, here, Wish::Now).await {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::debug!(%user, %error, "a user's large conversations could not be looked up");
                        tokio::time::sleep(AGAIN_AFTER).await;
                    }
                }
            }
        });
    }

    /// Gives sockets of a user the large conversations that the store says, and takes them from `others`. An event of their log
    /// may say something newer meanwhile: then the store is asked again.
    pub async fn settle(
        &self,
        user: &UserId,
        queues: &[Arc<SendQueue>],
        mut others: BTreeSet<ConversationId>,
        wish: Wish,
    ) -> Result<(), BackboneError> {
        let positions = || queues.iter().map(|queue| queue.position().map(|(at, _)| at)).collect::<Vec<_>>();
        loop {
            let before = positions();
            let own = self.own(user, BTreeSet::new()).await?;
            for conversation in others.iter().filter(|id| !own.iter().any(|own| own.conversation == **id)) {
                if let Some(inlet) = self.inlet(conversation) {
                    inlet.moved(queues, Move::LeaveUnlessSmall);
                }
            }
            for Own { conversation, .. } in own {
                queues.iter().for_each(|queue| self.join(&conversation, user, Arc::clone(queue), wish));
                others.insert(conversation);
            }
            if positions() == before {
                return Ok(());
            }
        }
    }

    /// The large conversations of a user, and those of the named ones that they are in, large or not.
    pub async fn own(&self, user: &UserId, named: BTreeSet<ConversationId>) -> Result<Vec<Own>, BackboneError> {
        let sources = self.sources.lock().clone().ok_or_else(|| BackboneError("the node ends".to_owned()))?;
        sources.store.own(user, named).await
    }

    /// Compares all conversations here with the store, by one query. Sockets that missed something get it. `at_once`: what is
    /// on its way now isn't waited for.
    async fn check(&self, at_once: bool) -> Result<(), BackboneError> {
        let Some(sources) = self.sources.lock().clone() else { return Ok(()) };
        let all: Vec<ConversationId> = self.table.inlets.lock().keys().cloned().collect();
        if all.is_empty() {
            return Ok(());
        }
        let heads = sources.store.heads(&all).await?;
        if !at_once {
            tokio::time::sleep(ON_ITS_WAY).await;
        }
        for conversation in &all {
            let Some(inlet) = self.inlet(conversation) else { continue };
            match heads.get(conversation) {
                Some(Head { place, large: true }) => {
                    let rev = place.rev;
                    inlet.add(|gathered| gathered.heard = gathered.heard.max(rev));
                }
                // It became small, or was deleted.
                Some(Head { large: false, .. }) | None => inlet.add(|gathered| gathered.is_doubtful = true),
            }
        }
        Ok(())
    }

    fn inlet(&self, conversation: &ConversationId) -> Option<Arc<Inlet>> {
        self.table.inlets.lock().get(conversation).cloned()
    }
}
