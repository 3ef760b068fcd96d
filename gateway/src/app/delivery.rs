//! The parts on the way from the backbone to this node's sockets, put together.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use shared::{ConversationId, UserId};
use tokio::sync::mpsc;

use crate::backbone::BackboneError;
use crate::chat::Chat;
use crate::chat::large::MissedMessage;
use crate::chat::members::MembersCache;
use crate::config::Config;
use crate::delivery::fanout::{Fanout, Invalidation};
use crate::delivery::healer::ReadMarked;
use crate::delivery::marker::{MarkedEvent, Named};
use crate::delivery::registry::Registry;
use crate::delivery::topics::{Head, LargeStore, Missed, MissedRow, Own, Topics};
use crate::metrics::Metrics;
use crate::store::{self, LargeOf, Store, StoreError};

/// Users whose logs are to be read.
pub(super) type HealQueue = mpsc::UnboundedReceiver<UserId>;

/// The way of an event from the backbone to this node's sockets, and the caches that events invalidate.
pub(super) struct Delivery {
    pub(super) registry: Arc<Registry>,
    pub(super) topics: Arc<Topics>,
    pub(super) fanout: Arc<Fanout>,
    pub(super) members: Arc<MembersCache>,
    pub(super) doubtful: Arc<AtomicBool>,
}

impl Delivery {
    /// The second part holds the users whose logs are to be read, for the healer.
    pub(super) fn new(config: &Config, store: &Arc<dyn Store>, metrics: &Arc<Metrics>) -> (Self, HealQueue) {
        #[expect(
            clippy::disallowed_methods,
            reason = "a user stands in it at most once, so it is bounded by the users"
        )]
        let (heal, heal_queue) = mpsc::unbounded_channel();
        let registry = Arc::new(Registry::new(config.limits.connections_per_user_max));
        let members = Arc::new(MembersCache::new(Arc::clone(store)));
        let doubtful = Arc::new(AtomicBool::new(false));
        let forgets = forgets(Arc::clone(&members), Arc::clone(&doubtful));
        let is_on = config.limits.large_conversation_members > 0;
        let topics = Arc::new(Topics::new(is_on, Arc::clone(&registry), Arc::clone(metrics)));
        let ways = (Arc::clone(&registry), Arc::clone(&topics));
        let fanout = Arc::new(Fanout::new(ways, Arc::clone(metrics), heal, forgets));
        (Self { registry, topics, fanout, members, doubtful }, heal_queue)
    }
}

/// Where the healer gets messages that a marker stands for.
pub(super) fn read_marked(chat: Arc<Chat>) -> ReadMarked {
    Box::new(move |user, named| {
        let chat = Arc::clone(&chat);
        Box::pin(async move {
            let (mut messages, mut notifications) = (Vec::new(), Vec::new());
            for named in named {
                match named {
                    Named::Message(id) => messages.push(id),
                    Named::Notification(id) => notifications.push(id),
                }
            }
            let messages = chat.marked_messages(&user, &messages).await.map_err(fault)?;
            let notifications = chat.marked_notifications(&user, &notifications).await.map_err(fault)?;
            let message = |(id, age, envelope)| MarkedEvent { named: Named::Message(id), age, envelope };
            let notification = |(id, age, envelope)| MarkedEvent { named: Named::Notification(id), age, envelope };
            Ok(messages.into_iter().map(message).chain(notifications.into_iter().map(notification)).collect())
        })
    })
}

/// The domain and the store, as large conversations need them.
pub(super) struct LargeReads {
    chat: Arc<Chat>,
    store: Arc<dyn Store>,
    own: LargeOf,
}

impl LargeReads {
    pub(super) fn new(chat: Arc<Chat>, store: Arc<dyn Store>) -> Self {
        Self { own: LargeOf::start(Arc::clone(&store)), chat, store }
    }
}

#[async_trait]
impl LargeStore for LargeReads {
    async fn missed(&self, conversation: &ConversationId, after: u64) -> Result<Missed, BackboneError> {
        let missed = self.chat.missed(conversation, after).await.map_err(fault)?;
        let row = |missed: MissedMessage| {
            let MissedMessage { message, was_large, new, changed } = missed;
            let is_changed =
                message.edited_at.is_some() || message.deleted_at.is_some() || !message.reactions.is_empty();
            MissedRow { rev: message.rev, seq: message.seq, was_large, is_changed, new, changed }
        };
        Ok(Missed {
            head: missed.head.map(head),
            floor: missed.floor,
            rows: missed.messages.into_iter().map(row).collect(),
        })
    }

    async fn heads(&self, conversations: &[ConversationId]) -> Result<HashMap<ConversationId, Head>, BackboneError> {
        let heads = self.store.heads(conversations).await.map_err(fault)?;
        Ok(heads.into_iter().map(|(id, at)| (id, head(at))).collect())
    }

    async fn own(&self, user: &UserId, named: BTreeSet<ConversationId>) -> Result<Vec<Own>, BackboneError> {
        let own = self.own.of(user, named).await.map_err(fault)?;
        Ok(own.into_iter().map(|own| Own { conversation: own.conversation, head: head(own.head) }).collect())
    }
}

fn head(head: store::Head) -> Head {
    Head { place: head.place, large: head.large }
}

fn fault(error: StoreError) -> BackboneError {
    BackboneError(error.to_string())
}

fn forgets(members: Arc<MembersCache>, doubtful: Arc<AtomicBool>) -> Box<dyn Fn(Invalidation) + Send + Sync> {
    Box::new(move |stale| match stale {
        Invalidation::Members(conversation) => members.forget(&conversation),
        Invalidation::Everything => {
            members.forget_all();
            doubtful.store(true, Ordering::Release);
        }
    })
}
