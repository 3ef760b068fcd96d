//! Which messages a user's sockets were given lately, so that a marker repeats none of them (NOLOSS.md, C1).
//!
//! A message's `seq` can't tell it: the log has lost the place of the message, or was begun anew.

use crate::switches;

/// How long a message is remembered at the least, in seconds. A node's rows are published again some 12 s after its death.
const REMEMBERED_S: u32 = 30;
/// Messages that are remembered of each such time: as many as a log holds for it. More are forgotten at once.
const MESSAGES_MAX: usize = 4096;

/// The messages, eight bytes each. Takes no memory until the first one.
#[derive(Debug, Default)]
pub(super) struct Recent {
    now: Vec<u64>,
    /// Those of the time before.
    before: Vec<u64>,
    /// Coarse seconds at which the present time began.
    since_s: u32,
}

impl Recent {
    /// A message was put on a socket. Several sockets get it one after the other.
    pub(super) fn note(&mut self, message: u64, now_s: u32) {
        self.forget_old(now_s);
        if self.now.len() < MESSAGES_MAX && self.now.last() != Some(&message) {
            self.now.push(message);
        }
    }

    /// Whether a socket had the message lately.
    pub(super) fn has(&self, message: u64) -> bool {
        !switches::off("recent") && (self.now.contains(&message) || self.before.contains(&message))
    }

    /// Forgets what is old; whether nothing is left.
    pub(super) fn forget_old(&mut self, now_s: u32) -> bool {
        let age_s = now_s.saturating_sub(self.since_s);
        if age_s >= 2 * REMEMBERED_S {
            (self.before, self.now) = (Vec::new(), Vec::new());
        } else if age_s >= REMEMBERED_S {
            self.before = std::mem::take(&mut self.now);
        }
        if age_s >= REMEMBERED_S {
            self.since_s = now_s;
        }
        self.now.is_empty() && self.before.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_remembered_by_time() {
        let mut recent = Recent::default();
        recent.note(7, 100);
        recent.note(8, 129);
        assert!(recent.has(7) && recent.has(8) && !recent.has(9));
        recent.note(9, 131);
        assert!(recent.has(7) && recent.has(8) && recent.has(9), "two seconds after 8");
        recent.note(10, 162);
        assert!(!recent.has(8) && recent.has(9) && recent.has(10));
        assert!(!recent.forget_old(163) && !recent.forget_old(193) && recent.forget_old(223));
    }

    #[test]
    fn so_many_are_remembered_as_a_log_holds() {
        let mut recent = Recent::default();
        (1..=5_000).for_each(|message| recent.note(message, 100));
        assert!(recent.has(1) && recent.has(4_096) && !recent.has(4_097));
    }
}
