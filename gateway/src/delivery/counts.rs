//! A user's unread counts on one node: loaded from the store when they are first needed, then folded from the user's own
//! events, and told behind them (NOLOSS.md, B5).
//!
//! A value without lock, bytes or I/O. Both ends of a count are only ever raised, so events may come late, twice, or after a
//! load that saw them. Only membership isn't monotone: its events are never folded, and the count is loaded anew.

use std::collections::{BTreeMap, HashMap};

use shared::ConversationId;

use crate::delivery::envelope::{CountMove, MoveKind};
use crate::delivery::known_counts::{Companion, Ends, KnownCounts};
use crate::store::UnreadCount;
use crate::switches;

/// Conversations of a user that may wait for their counts. With more, all counts are loaded anew.
pub const DUE_MAX: usize = 256;

/// What a node knows of a user's unread counts.
#[derive(Debug, Default)]
pub struct Counts {
    /// Nothing until the first load.
    known: Option<KnownCounts>,
    /// Conversations whose counts are to be loaded, with what came meanwhile.
    due: BTreeMap<ConversationId, DueCount>,
    /// While nothing is known: conversations that have only messages of the user, and the last of these. Nothing is unread there.
    own: HashMap<ConversationId, u64>,
    /// What was last told, of counts that were given up since.
    told_before: HashMap<ConversationId, u64>,
    /// The next load of all counts tells each that isn't the one last told.
    tells_all: bool,
    /// A load was asked for and has not begun.
    is_asked: bool,
    /// The load under way.
    load: Option<u64>,
}

#[derive(Debug, Default)]
struct DueCount {
    last_seq: u64,
    seen_seq: u64,
    /// The count is told when it is there.
    is_told: bool,
    /// The same, also if the user is no member.
    has_left: bool,
    /// The membership may have changed since the load under way began: it is done again.
    again: bool,
}

/// What a load has to bring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WantedCounts {
    /// All counts of the user.
    All,
    /// Those of these conversations.
    Of(Vec<ConversationId>),
}

/// What a load brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadedCounts {
    /// All counts of the user.
    All(Vec<UnreadCount>),
    /// Those of some conversations; nothing for one of which the user is no member.
    Of(Vec<(ConversationId, Option<UnreadCount>)>),
}

impl Counts {
    /// Folds an event, and returns its companion if it can be told now ([`Counts::note_told`]). If not, the load that is due
    /// tells it ([`Counts::asks`]). `is_repeated`: a socket gets the event later than others did.
    pub fn fold(&mut self, count: &CountMove<'_>, is_repeated: bool) -> Option<Companion> {
        let (last_seq, seen_seq) = match count.kind {
            MoveKind::Joined => {
                self.note_membership(count, false);
                return None;
            }
            MoveKind::Left => {
                self.note_membership(count, true);
                return None;
            }
            MoveKind::New { seq } => (seq, 0),
            MoveKind::Sent { seq } => (seq, seq),
            MoveKind::Read { last_seq, seen_seq } => (last_seq, seen_seq),
        };
        let is_due = self.due.contains_key(&*count.conversation);
        if let Some(known) = self.known.as_mut().filter(|_| !is_due)
            && let Some((id, ends)) = known.conversations.get_key_value(&*count.conversation)
        {
            let (id, before) = (id.clone(), *ends);
            let after = before.raised(last_seq, seen_seq);
            known.total = known.total - before.unread() + after.unread();
            let is_told = match count.kind {
                MoveKind::Sent { seq } if !is_repeated => before.is_lowered_by_own(seq, after),
                _ => true,
            };
            known.keep(&id, after);
            let total = known.total;
            return is_told.then(|| Companion { conversation: id, unread: after.unread(), total });
        }
        if let MoveKind::Sent { seq } = count.kind
            && self.note_own(&count.conversation, seq)
        {
            return None;
        }
        // Before the first message of a conversation nothing can be unread to its sender.
        let is_told = !matches!(count.kind, MoveKind::Sent { seq: ..=1 });
        if is_due || is_told {
            self.note_due(&count.conversation, |due| {
                due.last_seq = due.last_seq.max(last_seq);
                due.seen_seq = due.seen_seq.max(seen_seq);
                due.is_told |= is_told;
            });
        }
        None
    }

    /// A companion was put on a socket behind its event.
    pub fn note_told(&mut self, companion: &Companion) {
        let known = self.known.as_mut();
        if let Some(ends) = known.and_then(|known| known.conversations.get_mut(&companion.conversation)) {
            ends.told = Some(companion.unread);
        }
    }

    /// The companion of an event that a socket of the user may have got without it, if it can be told now. If not, the load
    /// that is due tells it, whether the user is a member or not.
    pub fn repeat(&mut self, count: &CountMove<'_>) -> Option<Companion> {
        if !self.due.contains_key(&*count.conversation)
            && let Some(known) = &self.known
            && let Some((id, ends)) = known.conversations.get_key_value(&*count.conversation)
        {
            return Some(Companion { conversation: id.clone(), unread: ends.unread(), total: known.total });
        }
        self.note_due(&count.conversation, |due| due.has_left = true);
        None
    }

    /// Events are missing, or something stands in their place: what is known isn't believed any more. With `tells_all`, counts
    /// that turn out to be others than those last told are told.
    pub fn give_up(&mut self, tells_all: bool) {
        self.tells_all |= tells_all;
        self.load = None;
        self.own.clear();
        if let Some(known) = self.known.take() {
            let told = known.conversations.into_iter().filter_map(|(id, ends)| Some((id, ends.told?)));
            self.told_before.extend(told);
        }
    }

    /// Whether a load is to be asked for; says so once.
    pub fn asks(&mut self) -> bool {
        let is_due = !self.due.is_empty() || self.tells_all;
        let asks = is_due && !self.is_asked && self.load.is_none();
        self.is_asked |= asks;
        asks
    }

    /// Whether something waits for a load.
    #[must_use]
    pub fn are_due(&self) -> bool {
        !self.due.is_empty() || self.tells_all
    }

    /// Begins the load that was asked for, under a number of its own; nothing if none was.
    pub fn begin_load(&mut self, load: u64) -> Option<WantedCounts> {
        if !std::mem::take(&mut self.is_asked) {
            return None;
        }
        self.load = Some(load);
        self.due.values_mut().for_each(|due| due.again = false);
        match (&self.known, self.tells_all) {
            (Some(_), false) => Some(WantedCounts::Of(self.due.keys().cloned().collect())),
            (Some(_), true) | (None, _) => Some(WantedCounts::All),
        }
    }

    /// The load has failed: it is asked for again, if it is still wanted.
    pub fn load_failed(&mut self, load: u64) {
        if self.load == Some(load) {
            self.load = None;
        }
    }

    /// Takes in what a load brought, and returns the companions that waited for it.
    pub fn loaded(&mut self, load: u64, counts: LoadedCounts) -> Vec<Companion> {
        if self.load != Some(load) {
            // It was given up meanwhile.
            return Vec::new();
        }
        self.load = None;
        let mut told = Vec::new();
        match counts {
            LoadedCounts::All(counts) => {
                self.own.clear();
                let mut known = KnownCounts::of(counts, &mut self.told_before);
                for id in self.due.keys().cloned().collect::<Vec<_>>() {
                    let loaded = known.remove(&id);
                    told.extend(settle(&mut known, &mut self.due, id, loaded));
                }
                if std::mem::take(&mut self.tells_all) {
                    told.extend(known.changed());
                    let gone = self.told_before.drain().filter(|(_, unread)| *unread > 0);
                    told.extend(gone.map(|(id, _)| (id, 0)));
                }
                self.told_before.clear();
                self.known = Some(known);
            }
            LoadedCounts::Of(counts) => {
                let Some(known) = &mut self.known else { return Vec::new() };
                for (id, count) in counts {
                    let before = known.remove(&id);
                    let told_before = before.and_then(|ends| ends.told);
                    let loaded = count.map(|count| Ends { told: told_before, ..Ends::from(&count) });
                    if loaded.is_none() && told_before.is_some_and(|unread| unread > 0) {
                        self.due.entry(id.clone()).or_default().has_left = true;
                    }
                    told.extend(settle(known, &mut self.due, id, loaded));
                }
            }
        }
        let total = self.known.as_ref().map_or(0, |known| known.total);
        told.into_iter().map(|(conversation, unread)| Companion { conversation, unread, total }).collect()
    }

    /// A membership began or ended, or the event says so late: only the store can tell.
    fn note_membership(&mut self, count: &CountMove<'_>, has_left: bool) {
        let is_loading = self.load.is_some();
        // Whoever has joined has nothing unread, and the first load will see what comes then.
        if (has_left || is_loading || self.known.is_some()) && !switches::off("count-membership") {
            self.note_due(&count.conversation, |due| {
                due.has_left |= has_left;
                due.again |= is_loading;
            });
        }
    }

    /// Notes the user's own message, unless counts are known or due; whether all before it are theirs.
    fn note_own(&mut self, conversation: &str, seq: u64) -> bool {
        if self.known.is_some() || self.due.contains_key(conversation) {
            return false;
        }
        if let Some(last) = self.own.get_mut(conversation) {
            *last = seq.max(*last);
            return true;
        }
        let Ok(id) = ConversationId::parse(conversation) else { return false };
        if seq == 1 && self.own.len() < DUE_MAX {
            self.own.insert(id, seq);
        }
        seq == 1
    }

    fn note_due(&mut self, conversation: &str, note: impl FnOnce(&mut DueCount)) {
        if let Some(due) = self.due.get_mut(conversation) {
            return note(due);
        }
        // Whoever writes into Redis may have put there what is no id.
        let Ok(id) = ConversationId::parse(conversation) else { return };
        if self.due.len() >= DUE_MAX {
            self.give_up(true);
            self.due.clear();
        }
        note(self.due.entry(id).or_default());
    }
}

/// Takes in the loaded count of a conversation that was due, with what came meanwhile; if it is to be told, what. It stays due
/// if its membership may have changed since the load began.
fn settle(
    known: &mut KnownCounts,
    all_due: &mut BTreeMap<ConversationId, DueCount>,
    id: ConversationId,
    loaded: Option<Ends>,
) -> Option<(ConversationId, u64)> {
    if all_due.get(&id).is_some_and(|due| due.again) {
        if let Some(ends) = loaded {
            known.put(id, ends);
        }
        return None;
    }
    let due = all_due.remove(&id).unwrap_or_default();
    let Some(ends) = loaded else { return due.has_left.then_some((id, 0)) };
    let ends = ends.raised(due.last_seq, due.seen_seq);
    let unread = ends.unread();
    let is_told = due.is_told || due.has_left || ends.told.map_or(unread > 0, |told| told != unread);
    let told = if is_told { Some(unread) } else { ends.told };
    known.put(id.clone(), Ends { told, ..ends });
    is_told.then_some((id, unread))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::known_counts::READ_COUNTS_MAX;

    fn id(name: &str) -> ConversationId {
        ConversationId::parse(name).expect("an id")
    }

    fn event(name: &'static str, kind: MoveKind) -> CountMove<'static> {
        CountMove { conversation: name.into(), kind }
    }

    fn stored(name: &str, last_seq: u64, seen_seq: u64) -> UnreadCount {
        UnreadCount { conversation: id(name), last_seq, seen_seq }
    }

    fn told(name: &str, unread: u64, total: u64) -> Companion {
        Companion { conversation: id(name), unread, total }
    }

    fn load(counts: &mut Counts, number: u64, of_all: &[UnreadCount]) -> Vec<Companion> {
        assert!(counts.asks() && !counts.asks(), "once");
        match counts.begin_load(number).expect("it was asked for") {
            WantedCounts::All => counts.loaded(number, LoadedCounts::All(of_all.to_vec())),
            WantedCounts::Of(ids) => {
                let of = |id: &ConversationId| of_all.iter().find(|count| count.conversation == *id).cloned();
                counts.loaded(number, LoadedCounts::Of(ids.into_iter().map(|id| (id.clone(), of(&id))).collect()))
            }
        }
    }

    /// Counts that were loaded for the first event of `c`, its message 5.
    fn known() -> Counts {
        let mut counts = Counts::default();
        assert_eq!(counts.fold(&event("c", MoveKind::New { seq: 5 }), false), None);
        let of_all = [stored("c", 4, 2), stored("d", 7, 0), stored("e", 1, 1)];
        assert_eq!(load(&mut counts, 1, &of_all), [told("c", 3, 10)]);
        counts
    }

    #[test]
    fn counts_are_loaded_once_and_only_raised() {
        let mut counts = known();
        let read = |last_seq, seen_seq| MoveKind::Read { last_seq, seen_seq };
        for (name, kind, expected) in [
            ("c", MoveKind::New { seq: 5 }, (3, 10)),
            ("c", read(5, 4), (1, 8)),
            ("c", MoveKind::New { seq: 3 }, (1, 8)),
            ("c", read(3, 1), (1, 8)),
            ("d", read(7, 7), (0, 1)),
            ("e", MoveKind::New { seq: 2 }, (1, 2)),
        ] {
            let (unread, total) = expected;
            assert_eq!(counts.fold(&event(name, kind), false), Some(told(name, unread, total)), "{name} {kind:?}");
        }
        assert!(!counts.asks());
    }

    #[test]
    fn a_sender_is_told_where_something_was_unread() {
        let mut counts = known();
        let sent = |seq| event("d", MoveKind::Sent { seq });
        assert_eq!(counts.fold(&sent(8), false), Some(told("d", 0, 3)));
        counts.note_told(&told("d", 0, 3));
        assert_eq!(counts.fold(&sent(9), false), None);
        assert_eq!(counts.fold(&sent(9), true), Some(told("d", 0, 3)), "a device that comes late may hold another");
        // What the store had ahead of the event was told to nobody.
        assert_eq!(counts.fold(&event("e", MoveKind::Sent { seq: 1 }), false), Some(told("e", 0, 3)));
        assert_eq!(Counts::default().fold(&event("x", MoveKind::Sent { seq: 1 }), false), None);
        assert!(!counts.asks());
    }

    #[test]
    fn what_changes_membership_is_loaded_anew_and_not_folded() {
        let mut counts = known();
        assert_eq!(counts.fold(&event("d", MoveKind::Left), false), None);
        assert_eq!(load(&mut counts, 2, &[]), [told("d", 0, 3)]);
        // Late: the user is a member no more.
        assert_eq!(counts.fold(&event("d", MoveKind::New { seq: 6 }), false), None);
        assert_eq!(load(&mut counts, 3, &[]), []);
        assert_eq!(counts.fold(&event("d", MoveKind::Joined), false), None);
        assert_eq!(counts.fold(&event("d", MoveKind::New { seq: 9 }), false), None);
        assert_eq!(load(&mut counts, 4, &[stored("d", 8, 8)]), [told("d", 1, 4)]);
    }

    #[test]
    fn a_load_that_a_change_of_membership_crosses_is_done_again() {
        let mut counts = known();
        assert_eq!(counts.fold(&event("x", MoveKind::New { seq: 10 }), false), None);
        assert!(counts.asks());
        assert_eq!(counts.begin_load(2), Some(WantedCounts::Of(vec![id("x")])));
        assert_eq!(counts.fold(&event("x", MoveKind::Left), false), None);
        assert_eq!(counts.loaded(2, LoadedCounts::Of(vec![(id("x"), Some(stored("x", 10, 3)))])), []);
        assert_eq!(load(&mut counts, 3, &[]), [told("x", 0, 10)], "the load saw a member, who has left since");
        assert_eq!(counts.fold(&event("c", MoveKind::New { seq: 6 }), false), Some(told("c", 4, 11)));
    }

    #[test]
    fn counts_that_are_given_up_are_loaded_anew_and_a_load_under_way_is_not_used() {
        let mut counts = known();
        counts.note_told(&told("c", 3, 10));
        counts.give_up(false);
        assert!(!counts.asks(), "not before they are needed");
        counts.give_up(true);
        assert!(counts.asks());
        assert_eq!(counts.begin_load(2), Some(WantedCounts::All));
        counts.give_up(true);
        assert_eq!(counts.loaded(2, LoadedCounts::All(vec![stored("c", 9, 0)])), []);
        let changed = load(&mut counts, 3, &[stored("d", 7, 7), stored("e", 3, 1)]);
        assert_eq!(changed, [told("e", 2, 2), told("c", 0, 2)], "c was told and has gone; d was never told");
        counts.give_up(true);
        assert!(counts.asks());
        counts.begin_load(4);
        counts.load_failed(4);
        assert_eq!(load(&mut counts, 5, &[]), [told("e", 0, 0)], "a load that failed stays due");
    }

    #[test]
    fn counts_are_bounded() {
        let mut counts = Counts::default();
        assert_eq!(counts.fold(&event("c", MoveKind::New { seq: 1 }), false), None);
        let many: Vec<UnreadCount> = (0..3_000).map(|n| stored(&format!("r{n}"), 5, 5)).collect();
        load(&mut counts, 1, &many);
        let kept = |counts: &Counts| counts.known.as_ref().map_or(0, |known| known.conversations.len());
        assert_eq!(kept(&counts), READ_COUNTS_MAX);
        assert_eq!(counts.fold(&event("r2999", MoveKind::New { seq: 6 }), false), None);
        assert_eq!(load(&mut counts, 2, &[stored("r2999", 6, 5)]), [told("r2999", 1, 1)], "one that was not kept");
        for n in 0..2 * DUE_MAX {
            let event = CountMove { conversation: format!("x{n}").into(), kind: MoveKind::New { seq: 2 } };
            assert_eq!(counts.fold(&event, false), None);
            assert!(counts.due.len() <= DUE_MAX);
        }
        assert!(counts.asks());
        assert_eq!(counts.begin_load(3), Some(WantedCounts::All));
    }
}
