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
    pub(super) fn keep(&mut self, rev: u64, envelope: Bytes) -> bool {
        if self.events.len() >= EVENTS_MAX || self.bytes + envelope.len() > BYTES_MAX {
            return false;
        }
        self.since.get_or_insert_with(Instant::now);
        self.bytes += envelope.len();
        if let Some(same) = self.events.insert(rev, envelope) {
            self.bytes -= same.len();
        }
        true
    }

    /// The event behind `rev`, if it is here. Those up to `rev` are forgotten.
    pub(super) fn next(&mut self, rev: u64) -> Option<Bytes> {
        while let Some(first) = self.events.first_entry() {
            if *first.key() > rev + 1 {
                return None;
            }
            let (is_next, envelope) = (*first.key() == rev + 1, first.remove());
            self.bytes -= envelope.len();
            self.since = (!self.events.is_empty()).then(Instant::now);
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

    #[tokio::test(start_paused = true)]
    async fn what_came_early_follows_the_earlier_one() {
        let mut ahead = Ahead::default();
        for rev in [4, 3, 6, 1, 4] {
            assert!(ahead.keep(rev, event(rev)));
        }
        let lost_at = ahead.lost_at().expect("something is missing");
        assert_eq!(lost_at - Instant::now(), GRACE);
        tokio::time::advance(Duration::from_millis(20)).await;
        // 2 has come.
        assert_eq!((ahead.next(2), ahead.next(3), ahead.next(4)), (Some(event(3)), Some(event(4)), None));
        assert_eq!(ahead.lost_at().expect("5 is missing") - Instant::now(), GRACE, "5 is waited for anew");
        // What was read had it, and more.
        assert_eq!((ahead.next(8), ahead.lost_at(), ahead.bytes), (None, None, 0));
    }

    #[test]
    fn no_more_is_kept_than_fits() {
        let mut ahead = Ahead::default();
        assert!(!ahead.keep(2, Bytes::from(vec![0; BYTES_MAX + 1])));
        assert!((2..2 + 256).all(|rev| ahead.keep(rev, event(rev))));
        assert!(!ahead.keep(2 + 256, event(1)) && ahead.next(1).is_some() && ahead.keep(2 + 256, event(1)));
    }
}
