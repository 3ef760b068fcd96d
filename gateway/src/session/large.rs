//! How a connection that joins comes to its user's large conversations: it goes on where its client says that it was, or is
//! told where each of them is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use shared::command::Resume;
use shared::event::ResyncReason;
use shared::{ConversationId, Places, UserId, Wire};

use super::registered::Registered;
use crate::delivery::heal::resync;
use crate::delivery::send_queue::SendQueue;
use crate::delivery::topics::{Own, Wish};
use crate::node::Node;

/// How long a connection that resumes waits for the store. Then it goes on, and is told of its large conversations later.
const LOOKED_UP_WITHIN: Duration = Duration::from_secs(2);
/// The pause before the store is asked again.
const PAUSE: Duration = Duration::from_secs(1);
/// How often it is looked whether a connection has got what its log brings it.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a joining connection has to know of large conversations.
pub(super) struct Arrival {
    /// What the client named; `None` if it doesn't know of large conversations, or doesn't resume.
    named: Option<Places>,
    /// The user's large conversations, and those that their client named. `None` if the store wasn't asked, or didn't answer.
    own: Option<Vec<Own>>,
    /// Whether there may be any.
    is_asked: bool,
}

impl Arrival {
    /// Looks up what has to be known before the connection is told whether it resumes. Who doesn't gets everything that is said
    /// from then on.
    pub(super) async fn look_up(node: &Node, user: &UserId, resume: Option<&Resume>, wire: Wire) -> Self {
        let named = match resume {
            // Flat frames have no place in a conversation: their history has the rest.
            Some(Resume::From(..)) if wire.dialect.is_flat() => Some(Places::new()),
            Some(Resume::From(_, named)) => named.clone(),
            Some(Resume::Invalid) | None => None,
        };
        let is_asked = node.topics.is_on() || named.as_ref().is_some_and(|named| !named.is_empty());
        let mut own = None;
        if is_asked {
            let asked = node.topics.own(user, names(named.as_ref()));
            own = tokio::time::timeout(LOOKED_UP_WITHIN, asked).await.ok().and_then(Result::ok);
        }
        Self { named, own, is_asked }
    }

    /// Whether the client would miss something without a word: its user is in a large conversation, and it doesn't know of any.
    pub(super) fn is_unaware(&self) -> bool {
        self.named.is_none() && self.own.as_ref().is_some_and(|own| own.iter().any(|own| own.head.large))
    }

    /// To be called before the gate opens, behind which events of the log may change where conversations come from. Whatever
    /// is sent goes out behind it.
    pub(super) fn go_on(&self, registered: &Registered, resumed: bool) {
        let (Some(named), Some(own), true) = (&self.named, &self.own, resumed) else { return };
        let join = |conversation: &ConversationId, wish| {
            registered.node.topics.join(conversation, &registered.user, Arc::clone(&registered.queue), wish);
        };
        for Own { conversation, .. } in own {
            match named.get(conversation) {
                Some(Some(place)) => join(conversation, Wish::From(*place)),
                Some(None) => join(conversation, Wish::Invalid),
                None => {}
            }
        }
    }

    /// To be called when the gate is open: the rest follows when the connection has what its log has for it, up to `last`.
    pub(super) fn follow(self, registered: &Registered, resumed: bool, last: u64) {
        if !self.is_asked {
            return;
        }
        let (node, user) = (Arc::clone(&registered.node), registered.user.clone());
        let queue = Arc::clone(&registered.queue);
        registered.node.tasks.spawn(async move {
            let is_unaware = resumed && self.named.is_none() && self.own.is_none();
            let named = self.named.filter(|_| resumed).unwrap_or_default();
            let mut others = names(Some(&named));
            if let Some(own) = self.own {
                // What became large on the way is there by the log.
                let is_behind = || queue.position().is_none_or(|(position, _)| position < last);
                while is_behind() && !is_gone(&node, &queue) {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                tokio::time::sleep(LOOK_EVERY).await;
                let unnamed = |own: &Own| own.head.large && !named.contains_key(&own.conversation);
                for Own { conversation, head } in own.into_iter().filter(unnamed) {
                    let wish = if resumed { Wish::Unnamed } else { Wish::Told(head.place) };
                    node.topics.join(&conversation, &user, Arc::clone(&queue), wish);
                    others.insert(conversation);
                }
                if queue.position().is_some_and(|(position, _)| position == last) {
                    return;
                }
            }
            let wish = if resumed { Wish::Unnamed } else { Wish::Now };
            settle(&node, &user, &queue, (others, wish)).await;
            if is_unaware && node.topics.own(&user, BTreeSet::new()).await.is_ok_and(|own| !own.is_empty()) {
                resync_all(&node, &user, &queue);
            }
        });
    }
}

/// Asks until the store answers, or the connection is gone.
async fn settle(node: &Node, user: &UserId, queue: &Arc<SendQueue>, (others, wish): (BTreeSet<ConversationId>, Wish)) {
    while let Err(error) = node.topics.settle(user, std::slice::from_ref(queue), others.clone(), wish).await {
        tracing::debug!(%user, %error, "the large conversations of a user could not be looked up");
        tokio::time::sleep(PAUSE).await;
        if is_gone(node, queue) {
            return;
        }
    }
}

/// Tells a client that doesn't know of large conversations to fetch everything.
fn resync_all(node: &Node, user: &UserId, queue: &SendQueue) {
    if let Some(epoch) = node.registry.epoch(user.as_str()) {
        queue.push_reply_at(|position| resync(ResyncReason::Trimmed, &epoch, position).on(queue.wire()).clone());
        node.metrics.resync(ResyncReason::Trimmed);
    }
}

fn is_gone(node: &Node, queue: &SendQueue) -> bool {
    queue.liveness().is_retired() || queue.closing().is_some() || node.draining.load(Ordering::Relaxed)
}

fn names(named: Option<&Places>) -> BTreeSet<ConversationId> {
    named.map(|named| named.keys().cloned().collect()).unwrap_or_default()
}
