//! A user's unread counts. Per conversation there are two ends, the last and the last seen message; both are only ever
//! raised (NOLOSS.md, B5).

use std::collections::HashMap;

use shared::ConversationId;

use crate::backbone::settings::READ_COUNTS_MAX;
use crate::store::{UnreadCount, UnreadMove};

/// The counts.
#[derive(Default)]
pub(super) struct Counts {
    conversations: HashMap<ConversationId, Ends>,
}

#[derive(Clone, Copy, Default)]
struct Ends {
    last: u64,
    seen: u64,
}

impl Counts {
    /// Moves a count and returns unread there and in all; `None` if the count isn't known.
    pub(super) fn apply(&mut self, unread: &UnreadMove) -> Option<(u64, u64)> {
        let UnreadMove { conversation, last_seq, seen_seq, announce: _ } = unread;
        let is_known = self.conversations.contains_key(conversation);
        let is_read = last_seq <= seen_seq;
        // Of a conversation that isn't known the count is known if nothing came before, or if nothing is unread afterwards.
        if !is_known && *last_seq != 1 && !is_read {
            return None;
        }
        let here = match !is_known && is_read && self.conversations.len() >= READ_COUNTS_MAX {
            true => 0,
            false => self.raise(conversation, *last_seq, *seen_seq),
        };
        let total = self.conversations.values().map(|ends| ends.unread()).sum();
        Some((here, total))
    }

    /// Takes in counts from the store.
    pub(super) fn seed(&mut self, counts: Vec<UnreadCount>) {
        for count in counts {
            self.raise(&count.conversation, count.last_seq, count.seen_seq);
        }
    }

    fn raise(&mut self, conversation: &ConversationId, last: u64, seen: u64) -> u64 {
        let ends = self.conversations.entry(conversation.clone()).or_default();
        ends.last = ends.last.max(last);
        ends.seen = ends.seen.max(seen);
        ends.unread()
    }
}

impl Ends {
    fn unread(self) -> u64 {
        self.last.saturating_sub(self.seen)
    }
}
