//! Which messages a user's sockets were given lately, so that a redo under a new epoch repeats none of them
//! (NOLOSS.md, B10).
//!
//! Within an epoch `seq` tells what a socket had. Across a change of epoch only the message's id does: a publication whose
//! outcome was uncertain is redone when the backbone comes back as another server, and the old log can't be asked any more.

use std::collections::VecDeque;

/// Messages that are remembered, of this epoch and of those before it: more than one user can have in publications that
/// are under way at the same time.
const RECENT_MAX: usize = 128;

/// The last messages, oldest first. Takes no memory until the first one.
#[derive(Debug, Default)]
pub(super) struct Recent {
    now: VecDeque<u64>,
    before: VecDeque<u64>,
}

impl Recent {
    /// A message was put on a socket. Several sockets get it one after the other.
    pub(super) fn note(&mut self, message: u64) {
        if self.now.back() != Some(&message) {
            push(&mut self.now, message);
        }
    }

    /// The user counts under another epoch from here on.
    pub(super) fn change_epoch(&mut self) {
        for message in std::mem::take(&mut self.now) {
            push(&mut self.before, message);
        }
    }

    /// Whether a socket had the message under an earlier epoch.
    pub(super) fn had_before(&self, message: u64) -> bool {
        self.before.contains(&message)
    }
}

fn push(messages: &mut VecDeque<u64>, message: u64) {
    if messages.len() >= RECENT_MAX {
        messages.pop_front();
    }
    messages.push_back(message);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_came_under_an_earlier_epoch_counts_and_only_so_much_of_it() {
        let mut recent = Recent::default();
        (1..=200).for_each(|message| recent.note(message));
        assert!(!recent.had_before(200), "it may come again in its place of the same log");
        recent.change_epoch();
        assert!(recent.had_before(200) && recent.had_before(73) && !recent.had_before(72));
        recent.note(201);
        recent.change_epoch();
        assert!(recent.had_before(201) && recent.had_before(74) && !recent.had_before(73));
    }
}
