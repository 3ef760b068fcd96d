//! The heal of one user: which part of the log to read next, and what a page of it means for the user's sockets.
//!
//! Live events that don't fit a socket's position are dropped on arrival, never held back: the log has them, so one read
//! from the position brings everything in order. Nothing here reads or waits, so that a test can try any order of things.

use std::sync::Arc;

use shared::event::ResyncReason;
use shared::{Epoch, Event, UserId};

use crate::backbone::{BackboneError, LogHead, LogPage};
use crate::delivery::envelope::is_logged;
use crate::delivery::frames::Frames;
use crate::delivery::marker::{MarkedEvent, Marker, Named};
use crate::delivery::registry::{LogEvent, Registry};
use crate::delivery::topics::Topics;
use crate::metrics::Metrics;
use crate::switches;

/// Reads that may fail while the backbone is away. After that the next resubscription brings the user back.
const FAILURES_MAX: u32 = 5;

/// A user who is being healed ([`Registry::begin_heal`]), until [`Heal::next_read`] gives nothing more.
pub struct Heal {
    registry: Arc<Registry>,
    topics: Arc<Topics>,
    metrics: Arc<Metrics>,
    user: UserId,
    /// The log has nothing more, or can't be read.
    is_over: bool,
    /// The epoch under which the user's sockets counted when a read was asked for.
    asked_under: Option<Epoch>,
    /// Failed reads since the heal began, or began once more.
    failures: u32,
}

/// What a page of the log means for sockets of which the lowest stands before it.
#[derive(Debug, PartialEq, Eq)]
enum PageMeaning {
    /// The log has nothing more.
    End,
    /// The log was begun anew: what was in the old one can only be fetched from the store.
    OtherEpoch,
    /// The log was trimmed beyond the position: only the store has what was in the entries that are gone.
    Trimmed,
    /// The log has a hole of its own, for its entries were deleted, or can't be read: only the store has what was in them.
    Hole {
        /// The `seq` of the last such entry.
        until: u64,
    },
    /// The next entries.
    Entries,
}

impl PageMeaning {
    /// Of a page that was read from `after`, for sockets that count under `epoch`.
    fn of(page: &LogPage, epoch: Option<&Epoch>, after: u64) -> Self {
        match page.entries.first() {
            _ if epoch != Some(&page.head.epoch) => Self::OtherEpoch,
            _ if after < page.head.floor => Self::Trimmed,
            None if after < page.head.last => Self::Hole { until: page.head.last },
            None => Self::End,
            Some((first, _)) if *first > after + 1 => Self::Hole { until: first - 1 },
            Some(_) => Self::Entries,
        }
    }

    /// The same, unless a test has switched off what notices it.
    fn without_switched_off(self) -> Self {
        match self {
            Self::OtherEpoch if switches::off("epoch-resync") => Self::End,
            Self::Hole { .. } if switches::off("hole-resync") => Self::Entries,
            Self::End | Self::OtherEpoch | Self::Trimmed | Self::Hole { .. } | Self::Entries => self,
        }
    }
}

impl Heal {
    /// The heal of a user who was marked for it.
    #[must_use]
    pub fn new((registry, topics): (Arc<Registry>, Arc<Topics>), metrics: Arc<Metrics>, user: UserId) -> Self {
        Self { registry, topics, metrics, user, is_over: false, asked_under: None, failures: 0 }
    }

    /// Who is being healed.
    #[must_use]
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// The position after which the log is to be read now; `None` when the heal has ended. It begins once more if another
    /// one was requested since it began.
    pub fn next_read(&mut self) -> Option<u64> {
        loop {
            if !self.is_over
                && let Some(position) = self.registry.lowest(self.user.as_str())
            {
                self.asked_under = self.registry.epoch(self.user.as_str());
                self.registry.read_doubt(self.user.as_str());
                return Some(position);
            }
            if !self.registry.end_heal(self.user.as_str()) {
                return None;
            }
            (self.is_over, self.failures) = (false, 0);
        }
    }

    /// Brings every socket of the user to the end of a page that was read from `after`, as far as it has room. A socket
    /// without room asks for the rest when it has some. `marked`: the messages that the page's markers stand for, if they were
    /// read from the store ([`Heal::wants_marked`]).
    pub fn apply(&mut self, after: u64, page: &LogPage, marked: Option<&[MarkedEvent]>) {
        let epoch = self.registry.epoch(self.user.as_str());
        if epoch != self.asked_under {
            // The log was begun anew while this page was on its way, and the page may be of the old one: read again.
            return;
        }
        match PageMeaning::of(page, epoch.as_ref(), after).without_switched_off() {
            PageMeaning::End => self.is_over = true,
            PageMeaning::OtherEpoch => self.resync_epoch(&page.head.epoch, page.head.last),
            PageMeaning::Trimmed => self.resync_trimmed(&page.head),
            PageMeaning::Hole { until } => self.resync_trimmed(&LogHead { floor: until, ..page.head.clone() }),
            PageMeaning::Entries => self.deliver(page, marked),
        }
        self.registry.end_doubt(self.user.as_str());
    }

    /// The log could not be read: how many reads have failed now, or `None` if that was one too many.
    pub fn read_failed(&mut self, error: &BackboneError) -> Option<u32> {
        self.failures += 1;
        if self.failures < FAILURES_MAX {
            return Some(self.failures);
        }
        self.is_over = true;
        self.metrics.heals_failed.increment(1);
        tracing::debug!(user = %self.user, %error, "a log could not be read");
        None
    }

    /// The messages that the markers of a page stand for, if some socket is to be given them.
    #[must_use]
    pub fn wants_marked(&self, page: &LogPage) -> Vec<Named> {
        let markers = page.entries.iter().filter_map(|(_, payload)| Marker::of(payload));
        let named: Vec<Named> = markers.flat_map(|marker| marker.named).collect();
        if named.is_empty() || !self.registry.has_flat(self.user.as_str()) { Vec::new() } else { named }
    }

    fn deliver(&self, page: &LogPage, marked: Option<&[MarkedEvent]>) {
        for (seq, payload) in &page.entries {
            let event = LogEvent::logged(*seq, payload).with_marked(marked);
            let tally = self.registry.push_logged(self.user.as_str(), &page.head.epoch, &event);
            if let Some((turn, passed)) = event.turn() {
                self.topics.turn(self.user.as_str(), &turn, passed);
            }
            self.metrics.healed.increment(u64::from(tally.queued));
            self.metrics.slow_consumers.increment(u64::from(tally.overflowed));
        }
    }

    fn resync_epoch(&self, epoch: &Epoch, position: u64) {
        let notice = resync(ResyncReason::Epoch, epoch, position);
        if self.registry.change_epoch(self.user.as_str(), epoch, position, &notice) {
            self.metrics.resync(ResyncReason::Epoch);
            self.topics.refresh(self.user.as_str());
        }
    }

    fn resync_trimmed(&self, head: &LogHead) {
        let notice = resync(ResyncReason::Trimmed, &head.epoch, head.last);
        if self.registry.skip_to(self.user.as_str(), head.floor, head.last, &notice) > 0 {
            self.metrics.resync(ResyncReason::Trimmed);
            self.topics.refresh(self.user.as_str());
        }
    }
}

/// A `resync`.
pub fn resync(reason: ResyncReason, epoch: &Epoch, seq: u64) -> Frames<'static> {
    let epoch = epoch.clone();
    let (conversation_id, message_id, message_ids, notification_ids) = (None, None, Vec::new(), Vec::new());
    Frames::of(&Event::Resync { reason, epoch, seq, conversation_id, message_id, message_ids, notification_ids })
}

/// A page without the entries that nobody can read, which others have written: they are holes (NOLOSS.md, C4).
#[must_use]
pub fn readable(mut page: LogPage, metrics: &Metrics) -> LogPage {
    let before = page.entries.len();
    page.entries.retain(|(seq, payload)| is_logged(*seq, payload));
    metrics.poisoned.increment(u64::try_from(before - page.entries.len()).unwrap_or(0));
    page
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_page_means_one_of_five_things() {
        let here = Epoch::parse("redis.1").expect("an epoch");
        let elsewhere = Epoch::parse("redis.2").expect("an epoch");
        let meaning = |epoch: &Epoch, after, floor, first: Option<u64>| {
            let head = LogHead { epoch: here.clone(), floor, last: 9 };
            let event = |seq| (seq, Bytes::from(format!(r#"{{"seq":{seq},"type":"a","payload":{{}}}}"#)));
            let entries = first.into_iter().map(event).collect();
            PageMeaning::of(&LogPage { head, entries }, Some(epoch), after)
        };
        assert_eq!(meaning(&here, 4, 0, Some(5)), PageMeaning::Entries);
        assert_eq!(meaning(&here, 4, 4, Some(5)), PageMeaning::Entries);
        assert_eq!(meaning(&here, 9, 0, None), PageMeaning::End);
        assert_eq!(meaning(&here, 4, 6, Some(7)), PageMeaning::Trimmed);
        assert_eq!(meaning(&here, 4, 0, Some(8)), PageMeaning::Hole { until: 7 });
        assert_eq!(meaning(&here, 8, 0, None), PageMeaning::Hole { until: 9 });
        assert_eq!(meaning(&elsewhere, 4, 0, Some(5)), PageMeaning::OtherEpoch);
        assert_eq!(meaning(&elsewhere, 9, 0, None), PageMeaning::OtherEpoch);
    }
}
