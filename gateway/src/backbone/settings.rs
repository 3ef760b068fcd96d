//! The settings of a backbone.

use std::sync::Arc;

use shared::redis_keys::Keys;

use super::push_jobs::PUSH_JOBS_MAX;
use crate::switches;

/// From this size on, in bytes, an event counts as a long one, and a log holds only as many events of its size as fit into
/// [`LOG_BYTES`]. A log of events of one size is never larger; one of mixed sizes seldom is.
pub(super) const LONG_BYTES: usize = 2 * 1024;
/// How many bytes of long events a log holds.
pub(super) const LOG_BYTES: usize = 1024 * 1024;
/// How many young events a log holds at the most: 8 MiB if all of them are just below [`LONG_BYTES`].
const HOT_EVENTS_MAX: u32 = 4096;

/// The settings of a backbone; the same on all nodes.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This node's name: stands in a channel's name, so it has to be a valid id.
    pub node: Arc<str>,
    /// Another one for every start of the node.
    pub boot_id: Arc<str>,
    /// The names of keys and channels in Redis.
    pub keys: Keys,
    /// How many events a log holds at least before it is trimmed.
    pub resume_events: u32,
    /// For how many seconds an event isn't trimmed, within the bounds in number and bytes: a redo can then tell whether the
    /// log had it (NOLOSS.md, C1).
    pub hot_seconds: u32,
    /// How long a log outlives the last sign of life; and how long an event stays in the log of a user who
    /// stays, but for the last such event: whoever left since then resumes from that one or from a later one.
    pub resume_seconds: u32,
    /// How long a user counts as online after the last sign of life.
    pub online_ttl_seconds: u32,
    /// How long after the last connection closed a user is announced offline.
    pub offline_grace_seconds: u32,
    /// Push jobs that may wait.
    pub push_jobs_max: u32,
    /// Whether the nodes do the jobs, and remove them. If not, another program reads them, and the oldest go when there are too
    /// many.
    pub push_is_posted: bool,
}

impl Settings {
    /// The default settings, for this node.
    #[must_use]
    pub fn new(node: &str, boot_id: &str) -> Self {
        Self {
            node: node.into(),
            boot_id: boot_id.into(),
            keys: Keys::default(),
            resume_events: 256,
            hot_seconds: if switches::off("hot-log") { 0 } else { 30 },
            resume_seconds: 3600,
            online_ttl_seconds: 60,
            offline_grace_seconds: 5,
            push_jobs_max: PUSH_JOBS_MAX,
            push_is_posted: false,
        }
    }

    /// How many events a log holds at the most, behind one of so many bytes.
    pub(super) fn log_entries_max(&self, bytes: usize) -> usize {
        let entries_max = usize::try_from(self.hot_events_max()).unwrap_or(usize::MAX);
        if bytes > LONG_BYTES { entries_max.min(LOG_BYTES / bytes).max(1) } else { entries_max }
    }

    /// How many events a log holds at the most, however young they are.
    pub(super) fn hot_events_max(&self) -> u32 {
        if self.hot_seconds == 0 { self.resume_events.max(1) } else { self.resume_events.max(HOT_EVENTS_MAX) }
    }

    /// Milliseconds from a sign of life to the check whether the user is gone.
    pub(super) fn life_ms(&self) -> i64 {
        i64::from(self.online_ttl_seconds.saturating_add(self.offline_grace_seconds)) * 1000
    }

    /// Milliseconds after which an event of a log is old, and after which old ones are trimmed: each time some.
    pub(super) fn old_after_ms(&self) -> (i64, i64) {
        let ms = i64::from(self.resume_seconds) * 1000;
        (ms, ms + ms / 20)
    }

    /// Milliseconds of the grace before an offline announcement.
    pub(super) fn grace_ms(&self) -> i64 {
        i64::from(self.offline_grace_seconds) * 1000
    }
}
