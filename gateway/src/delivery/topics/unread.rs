//! When the members of a large conversation are told how much is unread: at most once a second.

use std::time::Duration;

use tokio::time::Instant;

/// How long further messages are gathered.
const PERIOD: Duration = Duration::from_secs(1);

/// What was told last.
#[derive(Debug, Default)]
pub(super) struct Unread {
    /// The newest message then.
    seq: u64,
    at: Option<Instant>,
}

impl Unread {
    /// Nothing is to be told up to this message.
    pub(super) fn up_to(seq: u64) -> Self {
        Self { seq, at: None }
    }

    /// When members are to be told that there is the message `seq`, if they are.
    pub(super) fn due_at(&self, seq: u64) -> Option<Instant> {
        (seq > self.seq).then(|| self.at.map_or_else(Instant::now, |at| at + PERIOD))
    }

    /// Whether they are told now.
    pub(super) fn takes(&mut self, seq: u64, now: Instant) -> bool {
        let is_due = seq > self.seq && self.at.is_none_or(|at| now >= at + PERIOD);
        if is_due {
            *self = Self { seq, at: Some(now) };
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_told_once_a_second() {
        let (mut unread, now) = (Unread::up_to(3), Instant::now());
        assert!(!unread.takes(3, now) && unread.due_at(3).is_none());
        assert!(unread.takes(4, now));
        assert!(!unread.takes(9, now + Duration::from_millis(900)));
        assert_eq!((unread.due_at(4), unread.due_at(9)), (None, Some(now + PERIOD)));
        assert!(unread.takes(9, now + PERIOD) && !unread.takes(9, now + 2 * PERIOD));
    }
}
