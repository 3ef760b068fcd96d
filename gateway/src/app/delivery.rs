//! The parts on the way from the backbone to this node's sockets, put together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use shared::UserId;
use tokio::sync::mpsc;

use crate::backbone::BackboneError;
use crate::chat::Chat;
use crate::chat::members::MembersCache;
use crate::config::Config;
use crate::delivery::fanout::{Fanout, Invalidation};
use crate::delivery::healer::ReadMarked;
use crate::delivery::marker::{MarkedEvent, Named};
use crate::delivery::registry::Registry;
use crate::metrics::Metrics;
use crate::store::{Store, StoreError};

/// Users whose logs are to be read.
pub(super) type HealQueue = mpsc::UnboundedReceiver<UserId>;

/// The way of an event from the backbone to this node's sockets, and the caches that events invalidate.
pub(super) struct Delivery {
    pub(super) registry: Arc<Registry>,
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
        let fanout = Arc::new(Fanout::new(Arc::clone(&registry), Arc::clone(metrics), heal, forgets));
        (Self { registry, fanout, members, doubtful }, heal_queue)
    }
}

/// Where the healer gets messages that a marker stands for.
pub(super) fn read_marked(chat: Arc<Chat>) -> ReadMarked {
    Box::new(move |user, named| {
        let chat = Arc::clone(&chat);
        Box::pin(async move {
            let fault = |error: StoreError| BackboneError(error.to_string());
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

fn forgets(members: Arc<MembersCache>, doubtful: Arc<AtomicBool>) -> Box<dyn Fn(Invalidation) + Send + Sync> {
    Box::new(move |stale| match stale {
        Invalidation::Members(conversation) => members.forget(&conversation),
        Invalidation::Everything => {
            members.forget_all();
            doubtful.store(true, Ordering::Release);
        }
    })
}
