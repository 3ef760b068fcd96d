//! What can't be published at once, by conversation: messages whose members have to be loaded, and messages to many members,
//! which go out slice by slice. Each conversation keeps its order and waits for nothing of another's; everybody else goes on.
//!
//! It is a table of values: it never asks the store and never publishes.

use std::collections::{HashMap, VecDeque};

use shared::ConversationId;

use super::deliveries::Outgoing;
use super::directory::Audience;
use crate::store::StoredMessage;

/// Messages that may be held; more are left to the sweep.
const MESSAGES_MAX: usize = 16_384;

/// Everything that is held.
#[derive(Default)]
pub(super) struct Held {
    conversations: HashMap<ConversationId, Line>,
    /// Conversations whose first message has to be loaded, in the order in which they came.
    unloaded: VecDeque<ConversationId>,
    /// Conversations with something that can go, each once: the first has the next turn.
    turns: VecDeque<ConversationId>,
    count: usize,
}

/// What waits in one conversation, in its order.
#[derive(Default)]
struct Line {
    items: VecDeque<Item>,
    /// What is left of the first item, made when its turn came.
    slices: VecDeque<Outgoing>,
    /// The row of those slices.
    row: Option<u64>,
    has_turn: bool,
    is_to_load: bool,
}

/// Something that waits.
pub(super) enum Item {
    /// A message whose audience isn't known.
    Cold(u64, StoredMessage),
    /// A message whose audience is known.
    Ready(u64, StoredMessage, Box<Audience>),
    /// Events of the conversation, which came behind its messages.
    Events(u64, Vec<Outgoing>),
    /// A message that could not be loaded: its row is left.
    Failed(u64),
}

/// A part of a row that goes now.
pub(super) struct Slice {
    /// The row.
    pub(super) row: u64,
    /// What goes.
    pub(super) deliveries: Vec<Outgoing>,
    /// Whether that was the last of an item of the row; `None` if the item failed.
    pub(super) ends: Option<bool>,
}

impl Held {
    /// Whether something of this conversation waits: then whatever comes for it waits behind that.
    pub(super) fn holds(&self, conversation: &ConversationId) -> bool {
        self.conversations.contains_key(conversation)
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.conversations.is_empty()
    }

    /// Whether something can go now.
    pub(super) fn has_turns(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Puts an item behind what waits in its conversation; whether there was room.
    pub(super) fn push(&mut self, conversation: &ConversationId, item: Item) -> bool {
        if self.count >= MESSAGES_MAX {
            return false;
        }
        self.count += 1;
        let line = self.conversations.entry(conversation.clone()).or_default();
        line.items.push_back(item);
        if line.items.len() == 1 && line.slices.is_empty() {
            self.line_up(conversation);
        }
        true
    }

    /// Takes the first messages of conversations that have to be loaded, at most `max`: with each, those that follow it. They
    /// are answered by [`Held::loaded`].
    pub(super) fn take_unloaded(&mut self, max: usize) -> Vec<StoredMessage> {
        let mut messages = Vec::new();
        while messages.len() < max
            && let Some(conversation) = self.unloaded.pop_front()
        {
            let Some(line) = self.conversations.get_mut(&conversation) else { continue };
            line.is_to_load = false;
            messages.extend(line.items.iter().map_while(|item| match item {
                Item::Cold(_, stored) => Some(stored.clone()),
                Item::Ready(..) | Item::Events(..) | Item::Failed(_) => None,
            }));
        }
        messages
    }

    /// What loading found, message by message.
    pub(super) fn loaded(&mut self, message: &StoredMessage, audience: Option<Audience>) {
        let conversation = &message.message.conversation_id;
        let Some(line) = self.conversations.get_mut(conversation) else { return };
        let of_it = |item: &&mut Item| matches!(item, Item::Cold(_, stored) if stored.message.id == message.message.id);
        let Some(place) = line.items.iter_mut().find(of_it) else { return };
        let Item::Cold(row, stored) = std::mem::replace(place, Item::Failed(0)) else { return };
        *place = match audience {
            Some(audience) => Item::Ready(row, stored, Box::new(audience)),
            None => Item::Failed(row),
        };
        self.line_up(conversation);
    }

    /// Whatever has no audience yet won't get one.
    pub(super) fn fail_unloaded(&mut self) {
        for line in self.conversations.values_mut() {
            for item in &mut line.items {
                if let Item::Cold(row, _) = item {
                    *item = Item::Failed(*row);
                }
            }
        }
        self.unloaded.clear();
        let all: Vec<ConversationId> = self.conversations.keys().cloned().collect();
        all.iter().for_each(|conversation| self.line_up(conversation));
    }

    /// Takes at most `max` deliveries, from one conversation after the other, each at most its share. `make` makes those of a
    /// message.
    pub(super) fn take(
        &mut self,
        max: usize,
        mut make: impl FnMut(&StoredMessage, &Audience) -> Vec<Outgoing>,
    ) -> Vec<Slice> {
        let mut slices = Vec::new();
        let share = max.div_ceil(self.turns.len().max(1)).max(1);
        let mut left = max;
        for _ in 0..self.turns.len() {
            let Some(conversation) = self.turns.pop_front().filter(|_| left > 0) else { break };
            let Some(line) = self.conversations.get_mut(&conversation) else { continue };
            line.has_turn = false;
            let (taken, ended) = line.take(share.min(left), &mut make);
            left = left.saturating_sub(taken.iter().map(|slice| slice.deliveries.len()).sum());
            self.count -= ended;
            slices.extend(taken);
            self.line_up(&conversation);
        }
        slices
    }

    /// Puts a conversation where its first item belongs; forgets it if nothing is left.
    fn line_up(&mut self, conversation: &ConversationId) {
        let Some(line) = self.conversations.get_mut(conversation) else { return };
        match line.items.front() {
            None if line.slices.is_empty() => drop(self.conversations.remove(conversation)),
            Some(Item::Cold(..)) if line.slices.is_empty() => {
                if !std::mem::replace(&mut line.is_to_load, true) {
                    self.unloaded.push_back(conversation.clone());
                }
            }
            None | Some(_) => {
                if !std::mem::replace(&mut line.has_turn, true) {
                    self.turns.push_back(conversation.clone());
                }
            }
        }
    }
}

impl Line {
    /// At most `max` deliveries of what can go, and how many items ended with them.
    fn take(
        &mut self,
        max: usize,
        make: &mut impl FnMut(&StoredMessage, &Audience) -> Vec<Outgoing>,
    ) -> (Vec<Slice>, usize) {
        let (mut slices, mut left, mut ended) = (Vec::new(), max, 0);
        while left > 0 {
            if self.slices.is_empty() {
                match self.items.front() {
                    Some(Item::Ready(row, stored, audience)) => {
                        self.slices = make(stored, audience).into();
                        self.row = Some(*row);
                    }
                    Some(Item::Events(row, deliveries)) => {
                        self.slices = deliveries.clone().into();
                        self.row = Some(*row);
                    }
                    Some(Item::Failed(row)) => {
                        slices.push(Slice { row: *row, deliveries: Vec::new(), ends: None });
                        self.items.pop_front();
                        ended += 1;
                        continue;
                    }
                    Some(Item::Cold(..)) | None => break,
                }
            }
            let Some(row) = self.row else { break };
            let count = self.slices.len().min(left);
            let deliveries: Vec<Outgoing> = self.slices.drain(..count).collect();
            left -= count;
            let ends = self.slices.is_empty();
            slices.push(Slice { row, deliveries, ends: Some(ends) });
            if ends {
                self.items.pop_front();
                self.row = None;
                ended += 1;
            }
        }
        (slices, ended)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use shared::{ConversationKind, Role, UserId};

    use super::*;
    use crate::backbone::{Delivery, DeliveryKind};
    use crate::chat::events::About;
    use crate::store::{Members, Route};

    fn id(name: &str) -> ConversationId {
        ConversationId::parse(name).expect("an id")
    }

    fn stored(conversation: &str, seq: u64) -> StoredMessage {
        let message = serde_json::json!({
            "id": (seq + 100).to_string(), "conversationId": conversation, "seq": seq, "rev": seq, "senderId": "u",
            "kind": "text", "content": "x", "createdAt": "2025-11-21T13:00:00.000Z",
        });
        StoredMessage { message: serde_json::from_value(message).expect("a message"), members_version: 1 }
    }

    fn audience(count: usize) -> Audience {
        let list = (0..count).map(|n| (UserId::parse(&format!("u{n}")).expect("an id"), Role::Member)).collect();
        let now = Members {
            kind: ConversationKind::Group,
            version: 1,
            since_seq: 0,
            list,
            blocked: false,
            route: Route::default(),
        };
        Audience { now: Arc::new(now), then: None, about: About::default(), large: false }
    }

    /// Deliveries that say which message they are of.
    fn make(stored: &StoredMessage, audience: &Audience) -> Vec<Outgoing> {
        let body = Bytes::from(format!("{} {}", stored.message.conversation_id, stored.message.seq));
        let each = |(user, _): &(UserId, Role)| {
            Outgoing::User(Delivery { user: user.clone(), body: body.clone(), kind: DeliveryKind::Ephemeral })
        };
        audience.now.list.iter().map(each).collect()
    }

    fn body_of(outgoing: &Outgoing) -> &Bytes {
        match outgoing {
            Outgoing::User(delivery) => &delivery.body,
            Outgoing::Topic(event) => &event.body,
        }
    }

    fn bodies(slices: &[Slice]) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for outgoing in slices.iter().flat_map(|slice| &slice.deliveries) {
            let body = String::from_utf8(body_of(outgoing).to_vec()).expect("text");
            if all.last() != Some(&body) {
                all.push(body);
            }
        }
        all
    }

    #[test]
    fn each_conversation_keeps_its_order_and_holds_up_no_other() {
        let mut held = Held::default();
        for (conversation, seq) in [("a", 1), ("b", 1), ("a", 2), ("b", 2)] {
            assert!(held.push(&id(conversation), Item::Cold(seq, stored(conversation, seq))));
        }
        assert!(!held.has_turns() && held.holds(&id("a")));
        let asked = held.take_unloaded(1);
        assert_eq!(asked.iter().map(|stored| stored.message.seq).collect::<Vec<_>>(), [1, 2], "a whole conversation");
        assert_eq!(held.take_unloaded(9).len(), 2, "b, and a not again");
        held.loaded(&stored("b", 1), Some(audience(1)));
        held.loaded(&stored("b", 2), Some(audience(1)));
        assert_eq!(bodies(&held.take(100, make)), ["b 1", "b 2"], "a is still loading");
        assert!(!held.holds(&id("b")));
        held.loaded(&stored("a", 1), None);
        held.loaded(&stored("a", 2), Some(audience(1)));
        let slices = held.take(100, make);
        assert_eq!(
            slices.iter().map(|slice| (slice.row, slice.ends)).collect::<Vec<_>>(),
            [(1, None), (2, Some(true))]
        );
        assert!(held.is_empty());
    }

    #[test]
    fn large_ones_go_in_slices_by_turns() {
        let mut held = Held::default();
        for (conversation, count) in [("large", 10), ("small", 2)] {
            for seq in [1, 2] {
                let item = Item::Ready(seq, stored(conversation, seq), Box::new(audience(count)));
                assert!(held.push(&id(conversation), item));
            }
        }
        let first = held.take(8, make);
        let of_large =
            first.iter().flat_map(|slice| &slice.deliveries).filter(|it| body_of(it).starts_with(b"large")).count();
        assert_eq!((of_large, bodies(&first)), (4, vec!["large 1".into(), "small 1".into(), "small 2".into()]));
        let mut order = Vec::new();
        while !held.is_empty() {
            order.extend(bodies(&held.take(8, make)));
        }
        order.dedup();
        assert_eq!(order, ["large 1", "large 2"]);
    }

    #[test]
    fn events_stay_behind_their_conversations_messages() {
        let mut held = Held::default();
        let event = Delivery {
            user: UserId::parse("u").expect("an id"),
            body: Bytes::from_static(b"edited"),
            kind: DeliveryKind::Ephemeral,
        };
        assert!(held.push(&id("a"), Item::Cold(1, stored("a", 1))));
        assert!(held.push(&id("a"), Item::Events(2, vec![Outgoing::User(event)])));
        assert_eq!(held.take_unloaded(9).len(), 1);
        assert!(held.take(9, make).is_empty());
        held.loaded(&stored("a", 1), Some(audience(1)));
        assert_eq!(bodies(&held.take(9, make)), ["a 1", "edited"]);
    }

    #[test]
    fn it_is_bounded_and_a_fault_leaves_everything_to_the_sweep() {
        let mut held = Held::default();
        let full =
            (0..=MESSAGES_MAX as u64).map(|n| held.push(&id(&format!("c{n}")), Item::Cold(n, stored("x", n + 1))));
        assert_eq!(full.filter(|has_room| !has_room).count(), 1);
        held.fail_unloaded();
        let mut failed = 0;
        while !held.is_empty() {
            failed += held.take(512, make).iter().filter(|slice| slice.ends.is_none()).count();
        }
        assert_eq!(failed, MESSAGES_MAX);
    }
}
