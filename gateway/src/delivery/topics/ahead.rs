//! Events that came before an earlier one. Two nodes may publish two changes milliseconds out of order, so the earlier one is
//! waited for a moment, before it counts as lost.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::history::{BYTES_MAX, EVENTS_MAX};

/// How long an earlier event is waited for.
const GRACE: Duration = Duration::from_millis(50);

/// Events that came before an earlier one, by `rev`.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    events: BTreeMap<u64, Bytes>,
    bytes: usize,
    /// Since when the first of them waits.
    since: Option<Instant>,
}

impl Ahead {
    /// Keeps an event, if there is room.
    pub(super) fn keep(&mut self, rev: u64, envelope: Bytes, now: Instant) -> bool {
        if self.events.len() >= EVENTS_MAX || self.bytes + envelope.len() > BYTES_MAX {
            return false;
        }
        self.since.get_or_insert(now);
        self.bytes += envelope.len();
        if let Some(same) = self.events.insert(rev, envelope) {
            self.bytes -= same.len();
        }
        true
    }

    /// The event behind `rev`, if it is here. Those up to `rev` are forgotten.
    pub(super) fn next(&mut self, rev: u64, now: Instant) -> Option<Bytes> {
        while let Some(first) = self.events.first_entry() {
            if *first.key() > rev + 1 {
                return None;
            }
            let (is_next, envelope) = (*first.key() == rev + 1, first.remove());
            self.bytes -= envelope.len();
            self.since = (!self.events.is_empty()).then_some(now);
            if is_next {
                return Some(envelope);
            }
        }
        None
    }

    /// When the earlier event counts as lost.
    pub(super) fn lost_at(&self) -> Option<Instant> {
        self.since.map(|since| since + GRACE)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(rev: u64) -> Bytes {
        Bytes::from(rev.to_string())
    }

    #[test]
    fn what_came_early_follows_the_earlier_one() {
        let (mut ahead, now) = (Ahead::default(), Instant::now());
        for rev in [4, 3, 6, 1, 4] {
            assert!(ahead.keep(rev, event(rev), now));
        }
        assert_eq!(ahead.lost_at(), Some(now + GRACE));
        let later = now + Duration::from_millis(20);
        // 2 has come.
        let next = [2, 3, 4].map(|rev| ahead.next(rev, later));
        assert_eq!(next, [Some(event(3)), Some(event(4)), None]);
        assert_eq!(ahead.lost_at(), Some(later + GRACE), "5 is waited for anew");
        // What was read had it, and more.
        assert_eq!((ahead.next(8, later), ahead.lost_at(), ahead.bytes), (None, None, 0));
    }

    #[test]
    fn no_more_is_kept_than_fits() {
        let (mut ahead, now) = (Ahead::default(), Instant::now());
        assert!(!ahead.keep(2, Bytes::from(vec![0; BYTES_MAX + 1]), now));
        assert!((2..2 + 256).all(|rev| ahead.keep(rev, event(rev), now)));
        assert!(!ahead.keep(2 + 256, event(1), now));
        assert!(ahead.next(1, now).is_some() && ahead.keep(2 + 256, event(1), now));
    }
}
