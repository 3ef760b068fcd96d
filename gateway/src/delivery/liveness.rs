//! Signs of life of one socket: when its peer was heard, since when a write is stuck, whether commands are still wanted.
//!
//! Read by the sweep of all sockets once a second, so it needs no lock; it closes nothing by itself.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::clock::coarse_s;

/// What one socket shows of its life. Times are coarse seconds ([`coarse_s`]).
#[derive(Debug)]
pub struct Liveness {
    /// When the last byte came in. The socket's task writes it.
    heard_s: AtomicU32,
    /// Since when a write has made no progress; 0 when none is stuck. The socket's task writes it.
    stuck_since_s: AtomicU32,
    /// No further command is wanted from this socket. The drain writes it.
    quiet: AtomicBool,
    /// The socket has left its user. Its session writes it.
    retired: AtomicBool,
    /// The log has events for which the queue had no room. Written under the queue's lock; it stands here, because it fits
    /// into bytes that are free.
    pub(super) starved: AtomicBool,
}

impl Liveness {
    /// Of a socket that was heard just now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            heard_s: AtomicU32::new(coarse_s()),
            stuck_since_s: AtomicU32::new(0),
            quiet: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            starved: AtomicBool::new(false),
        }
    }

    /// The peer sent something.
    pub fn heard(&self) {
        self.heard_s.store(coarse_s(), Ordering::Relaxed);
    }

    /// When the last byte came in.
    pub fn heard_s(&self) -> u32 {
        self.heard_s.load(Ordering::Relaxed)
    }

    /// The socket's task could not write; `false` when it could again.
    pub fn set_stuck(&self, stuck: bool) {
        if !stuck {
            self.stuck_since_s.store(0, Ordering::Relaxed);
        } else if self.stuck_since_s.load(Ordering::Relaxed) == 0 {
            self.stuck_since_s.store(coarse_s(), Ordering::Relaxed);
        }
    }

    /// Since when a write has made no progress; `None` when none is stuck.
    pub fn stuck_since_s(&self) -> Option<u32> {
        match self.stuck_since_s.load(Ordering::Relaxed) {
            0 => None,
            since => Some(since),
        }
    }

    /// No further command is wanted: the one under way is finished and answered. A close follows.
    pub fn quiesce(&self) {
        self.quiet.store(true, Ordering::Relaxed);
    }

    /// The socket has left its user: nothing more is handed to it.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Whether the socket has left its user.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Whether no further command is wanted.
    pub fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::Relaxed)
    }
}

impl Default for Liveness {
    fn default() -> Self {
        Self::new()
    }
}
