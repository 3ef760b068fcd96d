//! A user's log in memory: the last events, numbered without gaps under an epoch.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use shared::{Epoch, Timestamp};

use crate::backbone::LogHead;

/// How much older than an event an entry has to be for the event to stand behind it, in milliseconds (NOLOSS.md, B4).
const DISORDER_MS_MAX: i64 = 5_000;

/// The log.
pub(super) struct Log {
    epoch: Epoch,
    entries: VecDeque<Entry>,
    last: u64,
    /// Unix milliseconds.
    pub(super) expires_ms: i64,
}

struct Entry {
    event_id: Arc<str>,
    appended_ms: i64,
    body: Bytes,
}

/// Whether a log has an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Search {
    Found,
    Absent,
    /// The entries that would prove its absence were trimmed.
    Unproven,
}

impl Log {
    pub(super) fn new(epoch: Epoch, expires_ms: i64) -> Self {
        Self { epoch, entries: VecDeque::new(), last: 0, expires_ms }
    }

    /// Adds an event and returns its `seq`; at most `entries_max` stay.
    pub(super) fn append(&mut self, event_id: &Arc<str>, now_ms: i64, body: Bytes, entries_max: usize) -> u64 {
        self.last += 1;
        self.entries.push_back(Entry { event_id: event_id.clone(), appended_ms: now_ms, body });
        let surplus = self.entries.len().saturating_sub(entries_max.max(1));
        self.entries.drain(..surplus);
        self.last
    }

    pub(super) fn search(&self, event_id: &str, committed_at: Timestamp) -> Search {
        for entry in self.entries.iter().rev() {
            if *entry.event_id == *event_id {
                return Search::Found;
            }
            if entry.appended_ms < committed_at.unix_ms() - DISORDER_MS_MAX {
                return Search::Absent;
            }
        }
        if self.floor() == 0 { Search::Absent } else { Search::Unproven }
    }

    pub(super) fn head(&self) -> LogHead {
        LogHead { epoch: self.epoch.clone(), floor: self.floor(), last: self.last }
    }

    pub(super) fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    /// `seq` and body of at most `limit` entries after `after`.
    pub(super) fn entries(&self, after: u64, limit: u32) -> impl Iterator<Item = (u64, &Bytes)> {
        let floor = self.floor();
        let skip = usize::try_from(after.saturating_sub(floor)).unwrap_or(usize::MAX);
        (floor + 1..).zip(self.entries.iter()).skip(skip).take(limit as usize).map(|(seq, entry)| (seq, &entry.body))
    }

    /// Removes the entries up to the last one that holds `text`.
    pub(super) fn cut(&mut self, text: &[u8]) {
        let holds = |entry: &Entry| entry.body.windows(text.len()).any(|part| part == text);
        if let Some(last) = self.entries.iter().rposition(holds) {
            self.entries.drain(..=last);
        }
    }

    fn floor(&self) -> u64 {
        self.last - self.entries.len() as u64
    }
}
