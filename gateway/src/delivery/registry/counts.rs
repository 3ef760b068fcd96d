//! The unread counts of users with sockets here: folded behind the lock of the user's shard, loaded by one task for all.

use std::collections::VecDeque;

use parking_lot::Mutex;
use shared::UserId;
use tokio::sync::Notify;

use super::{LocalUser, Registry};
use crate::delivery::counts::{LoadedCounts, WantedCounts};
use crate::delivery::envelope::{CountMove, MoveKind};
use crate::delivery::frames::Frames;
use crate::delivery::known_counts::Companion;
use crate::delivery::send_queue::Source;

/// Users whose counts are to be loaded: each stands here once while a load is asked for and has not begun.
#[derive(Debug, Default)]
pub(super) struct DueUsers {
    queues: Mutex<DueQueues>,
    added: Notify,
}

#[derive(Debug, Default)]
struct DueQueues {
    /// An event has come to a socket.
    first: VecDeque<UserId>,
    /// A client has resumed, and probably had everything.
    last: VecDeque<UserId>,
}

impl DueUsers {
    pub(super) fn add(&self, user: &str, may_wait: bool) {
        let Ok(user) = UserId::parse(user) else { return };
        let mut queues = self.queues.lock();
        if may_wait { &mut queues.last } else { &mut queues.first }.push_back(user);
        drop(queues);
        self.added.notify_one();
    }

    fn take(&self, limit: usize) -> Vec<UserId> {
        let mut queues = self.queues.lock();
        let first = queues.first.len().min(limit);
        let mut users: Vec<UserId> = queues.first.drain(..first).collect();
        let last = queues.last.len().min(limit - first);
        users.extend(queues.last.drain(..last));
        users
    }
}

impl Registry {
    /// Waits until counts are to be loaded, and takes at most `limit` users for whom they are.
    pub async fn counts_due(&self, limit: usize) -> Vec<UserId> {
        loop {
            let users = self.counts_due.take(limit);
            if !users.is_empty() {
                return users;
            }
            self.counts_due.added.notified().await;
        }
    }

    /// Begins a load of the user's counts under a number of its own; what it has to bring, if it is wanted still.
    pub fn begin_count_load(&self, user: &UserId, load: u64) -> Option<WantedCounts> {
        self.with_user(user, |local| local.counts.as_mut()?.begin_load(load)).flatten()
    }

    /// Takes in loaded counts, and tells the user's sockets what waited for them.
    pub fn counts_loaded(&self, user: &UserId, load: u64, loaded: LoadedCounts) {
        self.with_user(user, |local| {
            let Some(counts) = &mut local.counts else { return };
            let told = counts.loaded(load, loaded);
            local.tell_counts(&told, |_| true);
            self.ask_for_counts(user.as_str(), local, false);
        });
    }

    /// The load has failed: it is asked for again, behind others.
    pub fn count_load_failed(&self, user: &UserId, load: u64) {
        self.with_user(user, |local| {
            if let Some(counts) = &mut local.counts {
                counts.load_failed(load);
            }
            self.ask_for_counts(user.as_str(), local, true);
        });
    }

    /// Tells one socket the counts that these events moved, because it may have got the events without: at once, or when they
    /// are loaded. Whether some have to be loaded.
    pub fn repeat_counts(&self, user: &UserId, connection: u64, events: &[CountMove<'_>]) -> bool {
        // Whoever has joined has nothing unread.
        let mut events = events.iter().filter(|event| event.kind != MoveKind::Joined).peekable();
        let repeat = |local: &mut LocalUser| {
            if events.peek().is_none() || !local.has_canonical() {
                return false;
            }
            let counts = local.counts.get_or_insert_default();
            let mut told: Vec<Companion> = Vec::new();
            for event in events {
                if !told.iter().any(|told| told.conversation.as_str() == event.conversation) {
                    told.extend(counts.repeat(event));
                }
            }
            let are_due = counts.are_due();
            local.tell_counts(&told, |known| known == connection);
            self.ask_for_counts(user.as_str(), local, true);
            are_due
        };
        self.with_user(user, repeat).unwrap_or(false)
    }

    /// Folds a message of a large conversation, which no log brings, and tells all the user's sockets: at once, or when the count
    /// is loaded.
    pub fn fold_shared(&self, user: &UserId, count: &CountMove<'_>) {
        self.with_user(user, |local| {
            if let Some(companion) = local.fold(count, Source::Live(None)) {
                local.tell_counts(std::slice::from_ref(&companion), |_| true);
                if let Some(counts) = &mut local.counts {
                    counts.note_told(&companion);
                }
            }
            self.ask_for_counts(user.as_str(), local, false);
        });
    }

    /// Puts the user into a queue of the loader, if a load is due and not asked for yet. With `may_wait`, behind the users for
    /// whom an event has come.
    pub(super) fn ask_for_counts(&self, user: &str, local: &mut LocalUser, may_wait: bool) {
        if local.counts.as_mut().is_some_and(|counts| counts.asks()) {
            self.counts_due.add(user, may_wait);
        }
    }

    /// Whether counts of the user are to be loaded.
    #[must_use]
    pub fn has_counts_due(&self, user: &UserId) -> bool {
        self.with_user(user, |local| local.counts.as_ref().is_some_and(|counts| counts.are_due())).unwrap_or(false)
    }
}

impl LocalUser {
    /// Folds an event, if a socket of the user is told counts; its companion, if it can be told now.
    pub(super) fn fold(&mut self, count: &CountMove<'_>, source: Source) -> Option<Companion> {
        if !self.has_canonical() {
            // Nobody would fold what comes until the next such socket.
            self.counts = None;
            return None;
        }
        if self.counts.is_none() && count.kind == MoveKind::Joined {
            return None;
        }
        self.counts.get_or_insert_default().fold(count, source == Source::FromLog)
    }

    /// Forgets the user's counts, because events are missing. With `tells_all` they are loaded anew, and what has changed is told.
    pub(super) fn give_up_counts(&mut self, tells_all: bool) {
        if !self.has_canonical() {
            self.counts = None;
        } else if tells_all {
            self.counts.get_or_insert_default().give_up(true);
        } else if let Some(counts) = &mut self.counts {
            counts.give_up(false);
        }
    }

    fn has_canonical(&self) -> bool {
        self.sockets.iter().any(|socket| !socket.queue.wire().dialect.is_flat())
    }

    /// Puts companions on the sockets of these connections, without their events.
    fn tell_counts(&self, told: &[Companion], is_meant: impl Fn(u64) -> bool) {
        for companion in told {
            let frames = Frames::new(companion.to_string().into_bytes(), None);
            for socket in self.sockets.iter().filter(|socket| is_meant(socket.connection)) {
                socket.queue.push_companion(frames.on(socket.queue.wire()));
            }
        }
    }
}
