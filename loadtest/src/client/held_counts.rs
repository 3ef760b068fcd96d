//! The unread counts that a client holds: those last told, or fetched. Data in, data out.

use std::collections::{BTreeMap, BTreeSet};

use shared::ConversationId;

/// A user's unread counts, of conversations with something unread.
pub type UnreadCounts = BTreeMap<ConversationId, u64>;

/// The counts that a device holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeldCounts {
    /// Conversations with something unread.
    unread: UnreadCounts,
    /// Unread messages of all conversations together.
    total: u64,
    /// A fetch has brought the counts from before the first connection.
    is_fetched: bool,
    /// While a fetch is under way: the conversations whose counts were told since it began.
    told_meanwhile: Option<BTreeSet<ConversationId>>,
}

impl HeldCounts {
    /// Takes a `notification.unread`.
    pub fn told(&mut self, conversation: &ConversationId, unread: u64, total: u64) {
        if let Some(told) = &mut self.told_meanwhile {
            told.insert(conversation.clone());
        }
        self.hold(conversation.clone(), unread);
        self.total = total;
    }

    /// A fetch begins: counts that are told from now on are newer than those that it brings.
    pub fn fetch_begins(&mut self) {
        self.told_meanwhile = Some(BTreeSet::new());
    }

    /// Takes the counts of all conversations that a fetch brought.
    pub fn fetched(&mut self, counts: UnreadCounts) {
        let told = self.told_meanwhile.take().unwrap_or_default();
        self.is_fetched = true;
        if told.is_empty() {
            self.total = counts.values().sum();
        }
        self.unread.retain(|conversation, _| told.contains(conversation));
        for (conversation, unread) in counts.into_iter().filter(|(conversation, _)| !told.contains(conversation)) {
            self.hold(conversation, unread);
        }
    }

    /// Whether a fetch has brought the counts from before the first connection.
    #[must_use]
    pub fn is_fetched(&self) -> bool {
        self.is_fetched
    }

    /// The conversations with something unread.
    #[must_use]
    pub fn unread(&self) -> &UnreadCounts {
        &self.unread
    }

    /// Unread messages of all conversations together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    fn hold(&mut self, conversation: ConversationId, unread: u64) {
        if unread > 0 {
            self.unread.insert(conversation, unread);
        } else {
            self.unread.remove(&conversation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> ConversationId {
        ConversationId::parse(name).expect("an id")
    }

    fn counts<const N: usize>(counts: [(&str, u64); N]) -> UnreadCounts {
        counts.into_iter().map(|(name, unread)| (id(name), unread)).collect()
    }

    #[test]
    fn the_last_told_count_stays_and_zero_is_none() {
        let mut held = HeldCounts::default();
        held.fetch_begins();
        held.fetched(counts([("a", 3), ("b", 1)]));
        assert_eq!((held.total(), held.is_fetched()), (4, true));
        held.told(&id("a"), 4, 5);
        held.told(&id("b"), 0, 4);
        assert_eq!((held.unread(), held.total()), (&counts([("a", 4)]), 4));
    }

    #[test]
    fn counts_that_were_told_during_a_fetch_are_newer_than_those_that_it_brings() {
        let mut held = HeldCounts::default();
        held.told(&id("a"), 7, 9);
        held.fetch_begins();
        held.told(&id("b"), 2, 5);
        held.told(&id("c"), 0, 5);
        held.fetched(counts([("a", 3), ("b", 1), ("c", 6)]));
        assert_eq!((held.unread(), held.total()), (&counts([("a", 3), ("b", 2)]), 5));
        held.fetch_begins();
        held.fetched(counts([("d", 1)]));
        assert_eq!((held.unread(), held.total()), (&counts([("d", 1)]), 1));
    }
}
