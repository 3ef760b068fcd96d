//! Unread counts that a node has loaded, and the companion that tells one.
//!
//! It keeps the total in step, and drops counts of what is read when there are many. It never decides whether a count is told.

use std::collections::HashMap;
use std::fmt;

use shared::ConversationId;

use crate::store::UnreadCount;

/// Counts without anything unread that are kept of a user. A further one is loaded anew when it is needed.
pub const READ_COUNTS_MAX: usize = 1000;

/// A user's counts.
#[derive(Debug)]
pub(super) struct KnownCounts {
    pub(super) conversations: HashMap<ConversationId, Ends>,
    pub(super) total: u64,
}

/// The two ends of a count, and what was last told of it to all the user's sockets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    pub(super) last_seq: u64,
    pub(super) seen_seq: u64,
    pub(super) told: Option<u64>,
}

/// A `notification.unread`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Companion {
    /// The conversation.
    pub conversation: ConversationId,
    /// How many of its messages the user has not read.
    pub unread: u64,
    /// How many in all conversations.
    pub total: u64,
}

impl KnownCounts {
    pub(super) fn of(counts: Vec<UnreadCount>, told: &mut HashMap<ConversationId, u64>) -> Self {
        let mut known = Self { conversations: HashMap::with_capacity(counts.len()), total: 0 };
        for count in counts {
            let ends = Ends { told: told.remove(&count.conversation), ..Ends::from(&count) };
            known.put(count.conversation, ends);
        }
        known
    }

    /// Puts a count in that isn't there, unless it is read and there are many.
    pub(super) fn put(&mut self, id: ConversationId, ends: Ends) {
        self.total += ends.unread();
        if ends.unread() > 0 || self.conversations.len() < READ_COUNTS_MAX {
            self.conversations.insert(id, ends);
        }
    }

    /// Changes a count that is there, and forgets it if it is read and there are many. The total has moved already.
    pub(super) fn keep(&mut self, id: &ConversationId, ends: Ends) {
        if ends.unread() == 0 && self.conversations.len() > READ_COUNTS_MAX {
            self.conversations.remove(id);
        } else if let Some(kept) = self.conversations.get_mut(id) {
            *kept = ends;
        }
    }

    pub(super) fn remove(&mut self, id: &ConversationId) -> Option<Ends> {
        let ends = self.conversations.remove(id)?;
        self.total -= ends.unread();
        Some(ends)
    }

    /// Those that aren't the ones last told; they are now.
    pub(super) fn changed(&mut self) -> Vec<(ConversationId, u64)> {
        let mut changed = Vec::new();
        for (id, ends) in &mut self.conversations {
            let unread = ends.unread();
            if ends.told.map_or(unread > 0, |told| told != unread) {
                ends.told = Some(unread);
                changed.push((id.clone(), unread));
            }
        }
        changed
    }
}

impl From<&UnreadCount> for Ends {
    fn from(count: &UnreadCount) -> Self {
        Self { last_seq: count.last_seq, seen_seq: count.seen_seq, told: None }
    }
}

impl Ends {
    pub(super) fn unread(self) -> u64 {
        self.last_seq.saturating_sub(self.seen_seq)
    }

    pub(super) fn raised(self, last_seq: u64, seen_seq: u64) -> Self {
        Self { last_seq: self.last_seq.max(last_seq), seen_seq: self.seen_seq.max(seen_seq), ..self }
    }

    /// Whether devices may show another count until they are told, after the user's own message `seq`, which leaves nothing
    /// unread before it. Nothing was told yet of a count that the store had ahead of the event.
    pub(super) fn is_lowered_by_own(self, seq: u64, after: Self) -> bool {
        match self.told {
            Some(told) => told != after.unread(),
            None => self.unread() > 0 || self.last_seq >= seq,
        }
    }
}

impl fmt::Display for Companion {
    /// The envelope; an id needs no escapes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { conversation, unread, total } = self;
        write!(
            f,
            r#"{{"type":"notification.unread","payload":{{"conversationId":"{conversation}","unread":{unread},"#
        )?;
        write!(f, r#""totalUnread":{total}}}}}"#)
    }
}
