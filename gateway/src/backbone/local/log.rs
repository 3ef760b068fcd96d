//! A user's log in memory: the last events, numbered without gaps under an epoch.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use shared::Epoch;

use crate::backbone::redo::KnownLog;
use crate::backbone::{LogHead, Settings};

/// The log.
pub(super) struct Log {
    epoch: Epoch,
    entries: VecDeque<Entry>,
    last: u64,
    /// Unix milliseconds.
    begun_ms: i64,
    /// Unix milliseconds.
    pub(super) expires_ms: i64,
}

struct Entry {
    event_id: Arc<str>,
    appended_ms: i64,
    body: Bytes,
}

impl Log {
    pub(super) fn new(epoch: Epoch, begun_ms: i64, expires_ms: i64) -> Self {
        Self { epoch, entries: VecDeque::new(), last: 0, begun_ms, expires_ms }
    }

    /// Adds an event and returns its `seq`. Old entries are trimmed, young ones only where there are too many.
    pub(super) fn append(&mut self, event_id: &Arc<str>, now_ms: i64, body: Bytes, settings: &Settings) -> u64 {
        self.last += 1;
        let entries_max = settings.log_entries_max(body.len());
        self.entries.push_back(Entry { event_id: event_id.clone(), appended_ms: now_ms, body });
        let surplus = self.entries.len().saturating_sub(entries_max);
        self.entries.drain(..surplus);
        let cold_until_ms = now_ms - i64::from(settings.hot_seconds) * 1000;
        let kept = usize::try_from(settings.resume_events).unwrap_or(usize::MAX).max(1);
        while self.entries.len() > kept && self.entries.front().is_some_and(|entry| entry.appended_ms <= cold_until_ms)
        {
            self.entries.pop_front();
        }
        self.last
    }

    /// Forgets the old events but the last of them, once there are some that are older by a twentieth.
    pub(super) fn forget_old(&mut self, now_ms: i64, settings: &Settings) {
        let (old_after_ms, trimmed_after_ms) = settings.old_after_ms();
        let is_older = |entry: &Entry, age_ms: i64| entry.appended_ms + age_ms <= now_ms;
        if self.entries.get(1).is_some_and(|second| is_older(second, trimmed_after_ms)) {
            let old = self.entries.partition_point(|entry| is_older(entry, old_after_ms));
            self.entries.drain(..old.saturating_sub(1));
        }
    }

    /// The body of the entry `seq`, if it has this event.
    pub(super) fn body_of(&self, seq: u64, event_id: &str) -> Option<&Bytes> {
        let place = usize::try_from(seq.checked_sub(self.floor() + 1)?).ok()?;
        self.entries
            .get(place)
            .filter(|entry| entry.event_id.split(':').any(|id| id == event_id))
            .map(|entry| &entry.body)
    }

    /// What a redo has to know.
    pub(super) fn known(&self) -> KnownLog {
        let mut known = KnownLog::new(self.epoch.clone(), Some(self.begun_ms), self.floor());
        for (seq, entry) in (self.floor() + 1..).zip(&self.entries) {
            known.note(seq, &format!("{}:{}", entry.appended_ms, entry.event_id));
        }
        known
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
