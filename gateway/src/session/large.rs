//! How a connection that joins comes to its user's large conversations: it goes on where its client says that it was, or is
//! told where each of them is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use shared::command::Resume;
use shared::{ConversationId, Places, UserId, Wire};

use super::registered::Registered;
use crate::delivery::send_queue::SendQueue;
use crate::delivery::topics::Wish;
use crate::node::Node;

/// How long a connection that resumes waits for the store. Then it goes on, and is told of its large conversations later.
const LOOKED_UP_WITHIN: Duration = Duration::from_secs(2);
/// The pause before the store is asked again.
const PAUSE: Duration = Duration::from_secs(1);
/// How often it is looked whether a connection has got what its log brings it.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A user's large conversations, and those that their client named; with each, whether it is large.
type Own = Vec<(ConversationId, bool)>;

/// What a joining connection has to know of large conversations.
pub(super) struct Arrival {
    /// What the client named; `None` if it doesn't know of large conversations, or doesn't resume.
    named: Option<Places>,
    /// `None` if the store wasn't asked, or didn't answer.
    own: Option<Own>,
    /// Whether there may be any.
    is_asked: bool,
}

impl Arrival {
    /// Looks up what has to be known before the connection is told whether it resumes.
    pub(super) async fn look_up(node: &Node, user: &UserId, resume: Option<&Resume>, wire: Wire) -> Self {
        let (resumes, named) = match resume {
            // Flat frames have no place in a conversation: their history has the rest.
            Some(Resume::From(..)) if wire.dialect.is_flat() => (true, Some(Places::new())),
            Some(Resume::From(_, named)) => (true, named.clone()),
            Some(Resume::Invalid) | None => (false, None),
        };
        let is_asked = node.topics.is_on() || named.as_ref().is_some_and(|named| !named.is_empty());
        let mut own = None;
        if is_asked && resumes {
            let asked = node.topics.own(user, names(named.as_ref()));
            own = tokio::time::timeout(LOOKED_UP_WITHIN, asked).await.ok().and_then(Result::ok);
        }
        Self { named, own, is_asked }
    }

    /// Whether the client would miss something without a word: its user is in a large conversation, and it doesn't know of any.
    pub(super) fn is_unaware(&self) -> bool {
        self.named.is_none() && self.own.as_ref().is_some_and(|own| own.iter().any(|(_, large)| *large))
    }

    /// To be called before the gate opens, behind which events of the log may change where conversations come from. Whatever
    /// is sent goes out behind it.
    pub(super) fn go_on(&self, node: &Node, queue: &Arc<SendQueue>, resumed: bool) {
        let (Some(named), Some(own), true) = (&self.named, &self.own, resumed) else { return };
        for (conversation, _) in own {
            match named.get(conversation) {
                Some(Some(place)) => node.topics.join(conversation, Arc::clone(queue), Wish::From(*place)),
                Some(None) => node.topics.join(conversation, Arc::clone(queue), Wish::Invalid),
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
        let wish = if resumed { Wish::Unnamed } else { Wish::Now };
        registered.node.tasks.spawn(async move {
            // What was named is under way already, unless the store couldn't be asked.
            let named = self.named.as_ref().filter(|_| resumed && self.own.is_some()).cloned().unwrap_or_default();
            let own = match self.own {
                Some(own) => own,
                None => match ask(&node, &user, &queue, names(self.named.as_ref())).await {
                    Some(own) => own,
                    None => return,
                },
            };
            let is_behind = || queue.position().is_none_or(|(position, _)| position < last);
            while resumed && is_behind() && !queue.liveness().is_retired() && queue.closing().is_none() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            // What became large on the way is there, too.
            for (conversation, _) in own.iter().filter(|(id, large)| *large && !named.contains_key(id)) {
                node.topics.join(conversation, Arc::clone(&queue), wish);
            }
        });
    }
}

/// Asks until the store answers; `None` if the connection is gone.
async fn ask(node: &Node, user: &UserId, queue: &SendQueue, named: BTreeSet<ConversationId>) -> Option<Own> {
    loop {
        match node.topics.own(user, named.clone()).await {
            Ok(own) => return Some(own),
            Err(error) => tracing::debug!(%error, "the large conversations of a user could not be looked up"),
        }
        tokio::time::sleep(PAUSE).await;
        if queue.liveness().is_retired() || node.draining.load(Ordering::Relaxed) {
            return None;
        }
    }
}

fn names(named: Option<&Places>) -> BTreeSet<ConversationId> {
    named.map(|named| named.keys().cloned().collect()).unwrap_or_default()
}
