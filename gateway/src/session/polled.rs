//! The large conversations of a long poll. It says where its client was in each, waits there like a socket, and learns where
//! the client is behind its answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shared::{ConversationId, Place, Places, UserId};

use super::registered::Registered;
use crate::delivery::envelope::{StepKind, TopicStep, Turn};
use crate::delivery::send_queue::FramedBytes;
use crate::delivery::topics::{Own, Wish};
use crate::node::Node;
use crate::ws::frame::text_payloads;

/// How long a poll waits for the store. Then it goes on without, and the next one brings what was said.
const LOOKED_UP_WITHIN: Duration = Duration::from_secs(2);

/// Where a client is in large conversations.
pub type KnownPlaces = BTreeMap<ConversationId, [u64; 2]>;

/// The large conversations of a long poll.
pub(super) struct Polled {
    /// Where the client says that it is; `None` if it doesn't know of large conversations.
    named: Option<Places>,
    /// Where it is behind what was gathered.
    places: BTreeMap<ConversationId, Place>,
    /// `None` if the store wasn't asked, or didn't answer.
    own: Option<Vec<Own>>,
    /// Those that haven't said yet what was missed.
    awaited: BTreeSet<ConversationId>,
    events: Vec<Bytes>,
    is_on: bool,
}

impl Polled {
    /// Looks up the user's large conversations.
    pub(super) async fn look_up(node: &Node, user: &UserId, named: Option<Places>) -> Self {
        let is_on = node.topics.is_on() || named.as_ref().is_some_and(|named| !named.is_empty());
        let names = named.iter().flat_map(|named| named.keys().cloned()).collect();
        let own = match is_on {
            true => {
                tokio::time::timeout(LOOKED_UP_WITHIN, node.topics.own(user, names)).await.ok().and_then(Result::ok)
            }
            false => None,
        };
        let places = named.iter().flatten().filter_map(|(id, place)| Some((id.clone(), (*place)?))).collect();
        Self { named, places, own, awaited: BTreeSet::new(), events: Vec::new(), is_on }
    }

    /// Whether the client would miss something without a word.
    pub(super) fn is_unaware(&self) -> bool {
        self.named.is_none() && self.own.as_ref().is_some_and(|own| own.iter().any(|own| own.head.large))
    }

    /// Where each of them is now, for a client that asks for nothing else.
    pub(super) fn heads(&self) -> Option<KnownPlaces> {
        let own = self.own.as_ref().filter(|own| !own.is_empty())?;
        Some(own.iter().map(|own| (own.conversation.clone(), [own.head.place.rev, own.head.place.seq])).collect())
    }

    /// Waits in each, from where the client was. What became large in these entries of the log begins there.
    pub(super) fn join(&mut self, listener: &Registered, entries: &[Bytes]) {
        if !self.is_on {
            return;
        }
        let mut begun: BTreeMap<ConversationId, Place> = BTreeMap::new();
        for turn in entries.iter().filter_map(|entry| Turn::of(entry)) {
            if let Turn::Large { conversation, place, .. } = turn {
                begun.insert(conversation, place);
            }
        }
        for Own { conversation, head } in self.own.iter().flatten() {
            let named = self.named.as_ref().and_then(|named| named.get(conversation));
            let wish = match (named, begun.get(conversation)) {
                (Some(Some(place)), _) | (None, Some(place)) => Wish::Told(*place),
                (Some(None), _) => Wish::Invalid,
                (None, None) if self.is_unaware() => Wish::Now,
                (None, None) if head.large => Wish::Unnamed,
                (None, None) => continue,
            };
            let queue = Arc::clone(&listener.queue);
            listener.node.topics.join(conversation, &listener.user, queue, wish);
            self.awaited.insert(conversation.clone());
        }
        if let Some(own) = &self.own {
            // Its user isn't in the others any more; those that became small are in the log from here on.
            let is_large = |id: &ConversationId| own.iter().any(|own| own.conversation == *id && own.head.large);
            self.places.retain(|conversation, _| is_large(conversation));
        }
    }

    /// Takes what came for the listener's socket; the log is read for the rest.
    pub(super) fn take(&mut self, frames: impl Iterator<Item = FramedBytes>) {
        for framed in frames {
            for envelope in text_payloads(&framed) {
                let Some(TopicStep { conversation, place, kind }) = TopicStep::of(envelope) else { continue };
                if kind != StepKind::Event {
                    self.awaited.remove(&conversation);
                }
                if kind != StepKind::Position {
                    self.events.push(Bytes::copy_from_slice(envelope));
                }
                let is_small = self.own.iter().flatten().any(|own| own.conversation == conversation && !own.head.large);
                if is_small {
                    continue;
                }
                let at = self.places.entry(conversation).or_default();
                *at = match kind {
                    StepKind::Event => Place { rev: place.rev, seq: at.seq.max(place.seq) },
                    StepKind::Position | StepKind::Resync => place,
                };
            }
        }
    }

    /// Whether each has said what was missed.
    pub(super) fn is_settled(&self) -> bool {
        self.awaited.is_empty()
    }

    /// Whether something was said.
    pub(super) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// What was said, and where the client is behind it.
    pub(super) fn end(self) -> (Vec<Bytes>, Option<KnownPlaces>) {
        let known = self.is_on && self.named.is_some();
        let places = self.places.into_iter().map(|(conversation, place)| (conversation, [place.rev, place.seq]));
        (self.events, known.then(|| places.collect()))
    }
}
