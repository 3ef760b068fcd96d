//! The sockets of each user on this node, in shards, so that no lock is common to all users.
//!
//! Offers the table itself (this file), pushes to a user's sockets (`push`), their places in the log (`positions`), their
//! user's unread counts (`counts`), the sweep of their clocks and the operators' list. It never waits, and senders never look
//! here: only the backbone's events do.

mod counts;
mod listing;
mod log_event;
mod positions;
mod push;
mod recent;
mod sweep;

use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use shared::{CloseCode, Dialect, Epoch, UserId};
use smallvec::SmallVec;

use crate::clock::coarse_s;
use crate::delivery::counts::Counts;
use crate::delivery::send_queue::SendQueue;
use counts::DueUsers;
use recent::Recent;

pub use listing::ListedSocket;
pub use log_event::LogEvent;
pub use positions::JoinOutcome;
pub use push::PushTally;
pub use sweep::{Sweep, SweepClocks};

const SHARDS: usize = 64;

/// A socket of an authenticated user.
#[derive(Debug, Clone)]
pub struct LocalSocket {
    /// The connection's number on this node.
    pub connection: u64,
    /// Its queue.
    pub queue: Arc<SendQueue>,
    /// Coarse seconds at which its token expires.
    pub expires_s: u32,
    /// Coarse seconds of when it became the user's.
    opened_s: u32,
    /// Unix seconds at which its token was issued; 0 if that isn't known, which counts as long ago.
    issued_s: u32,
    /// The moment of silence that was answered with a ping: `heard_s` at that time.
    pinged_for_s: u32,
}

/// A user with sockets on this node.
#[derive(Debug, Default)]
struct LocalUser {
    sockets: SmallVec<[LocalSocket; 1]>,
    /// Under which their positions count; `None` until the first one has joined.
    epoch: Option<Epoch>,
    /// What the sockets were given lately; nothing for an idle user.
    recent: Option<Box<Recent>>,
    /// The user's unread counts, once an event has needed them.
    counts: Option<Box<Counts>>,
    /// Coarse seconds of the last presence refresh.
    refreshed_s: u32,
    /// Coarse seconds of the last check of the log for silent loss.
    checked_s: u32,
    /// The healer has this user, or they wait for it.
    healing: bool,
    /// While the user was being healed, a heal was requested again.
    heal_again: bool,
    doubt: Doubt,
}

/// Whether events that are pushed count under the epoch of the sockets: a push doesn't tell its epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Doubt {
    #[default]
    None,
    /// The subscription was made anew. The log may have been begun anew meanwhile, and a push of the new one may look like
    /// the next of the old one.
    Raised,
    /// The log is being read, since the doubt was raised.
    BeingRead,
}

/// Users and their sockets.
#[derive(Debug)]
pub struct Registry {
    shards: Box<[Mutex<HashMap<UserId, LocalUser>>]>,
    hasher: RandomState,
    sockets: AtomicUsize,
    users: AtomicUsize,
    per_user_max: usize,
    /// Users whose unread counts are to be loaded.
    counts_due: DueUsers,
}

/// The user has as many sockets as they may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

impl Registry {
    /// An empty registry that allows `per_user_max` sockets of one user (0: any number).
    #[must_use]
    pub fn new(per_user_max: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            sockets: AtomicUsize::new(0),
            users: AtomicUsize::new(0),
            per_user_max,
            counts_due: DueUsers::default(),
        }
    }

    /// Adds a socket; its gate is still closed.
    pub fn add(&self, user: &UserId, connection: u64, queue: Arc<SendQueue>, expires_s: u32) -> Result<(), TooMany> {
        self.with_shard(user, |users| {
            let local = users.entry(user.clone()).or_insert_with(|| {
                self.users.fetch_add(1, Relaxed);
                LocalUser { refreshed_s: coarse_s(), checked_s: coarse_s(), ..LocalUser::default() }
            });
            if self.per_user_max > 0 && local.sockets.len() >= self.per_user_max {
                return Err(TooMany);
            }
            let opened_s = coarse_s();
            let socket = LocalSocket { connection, queue, expires_s, opened_s, issued_s: 0, pinged_for_s: 0 };
            local.sockets.push(socket);
            self.sockets.fetch_add(1, Relaxed);
            Ok(())
        })
    }

    /// Removes a socket; whether it was the user's last one here.
    pub fn remove(&self, user: &UserId, connection: u64) -> bool {
        self.with_shard(user, |users| {
            let Some(local) = users.get_mut(user) else { return false };
            let before = local.sockets.len();
            local.sockets.retain(|socket| socket.connection != connection);
            self.sockets.fetch_sub(before - local.sockets.len(), Relaxed);
            let last = local.sockets.is_empty();
            if last {
                users.remove(user);
                self.users.fetch_sub(1, Relaxed);
                if users.capacity() > 64 && users.len() * 4 < users.capacity() {
                    users.shrink_to(users.len() * 2);
                }
            }
            last
        })
    }

    /// A fresh token came over the connection.
    pub fn set_expiry(&self, user: &UserId, connection: u64, expires_s: u32) {
        self.with_user(user, |local| {
            for socket in local.sockets.iter_mut().filter(|socket| socket.connection == connection) {
                socket.expires_s = expires_s;
            }
        });
    }

    /// When the token of a connection was issued.
    pub fn set_issued(&self, user: &UserId, connection: u64, issued_at_s: Option<i64>) {
        let issued_s = u32::try_from(issued_at_s.unwrap_or_default().max(0)).unwrap_or(u32::MAX);
        self.with_user(user, |local| {
            for socket in local.sockets.iter_mut().filter(|socket| socket.connection == connection) {
                socket.issued_s = issued_s;
            }
        });
    }

    /// Closes the user's sockets whose tokens were issued up to that second, in which they were revoked: how many. A token
    /// of the very second may be younger than the revocation, so its client is told to fetch another.
    pub fn close_revoked(&self, user: &UserId, revoked_s: i64) -> usize {
        let code = |socket: &LocalSocket| match i64::from(socket.issued_s).cmp(&revoked_s) {
            Ordering::Less => Some(CloseCode::SessionRevoked),
            Ordering::Equal => Some(CloseCode::TokenExpired),
            Ordering::Greater => None,
        };
        let close = |socket: &LocalSocket| code(socket).map(|code| socket.queue.close(code));
        self.with_user(user, |local| local.sockets.iter().filter_map(close).count()).unwrap_or(0)
    }

    /// Acts on the queue of one socket.
    pub fn with_queue(&self, user: &UserId, connection: u64, act: impl FnOnce(&SendQueue)) {
        self.with_user(user, |local| {
            if let Some(socket) = local.sockets.iter().find(|socket| socket.connection == connection) {
                act(&socket.queue);
            }
        });
    }

    /// Closes sockets of a user.
    pub fn close_user(&self, user: &UserId, code: CloseCode) -> usize {
        self.with_user(user, |local| {
            local.sockets.iter().for_each(|socket| socket.queue.close(code));
            local.sockets.len()
        })
        .unwrap_or(0)
    }

    /// The queues of a user's sockets.
    #[must_use]
    pub fn queues_of(&self, user: &UserId) -> Vec<Arc<SendQueue>> {
        let queues = |local: &mut LocalUser| local.sockets.iter().map(|socket| Arc::clone(&socket.queue)).collect();
        self.with_user(user, queues).unwrap_or_default()
    }

    /// Every user with a socket here.
    #[must_use]
    pub fn users(&self) -> Vec<UserId> {
        self.shards.iter().flat_map(|shard| shard.lock().keys().cloned().collect::<Vec<_>>()).collect()
    }

    /// Every socket's queue.
    #[must_use]
    pub fn queues(&self) -> Vec<Arc<SendQueue>> {
        let of_shard = |shard: &Mutex<HashMap<UserId, LocalUser>>| -> Vec<Arc<SendQueue>> {
            let users = shard.lock();
            users.values().flat_map(|local| local.sockets.iter().map(|socket| Arc::clone(&socket.queue))).collect()
        };
        self.shards.iter().flat_map(of_shard).collect()
    }

    /// Bytes that wait for all sockets together, and for the one for which the most waits.
    #[must_use]
    pub fn queued_bytes(&self) -> (u64, u32) {
        let sockets = self.queues();
        let waiting = sockets.iter().map(|queue| queue.queued_bytes());
        waiting.fold((0, 0), |(sum, most), bytes| (sum + u64::from(bytes), bytes.max(most)))
    }

    /// How many sockets of authenticated users there are.
    #[must_use]
    pub fn socket_count(&self) -> usize {
        self.sockets.load(Relaxed)
    }

    /// How many sockets of authenticated users speak each dialect.
    #[must_use]
    pub fn sockets_by_dialect(&self) -> Vec<(Dialect, usize)> {
        let mut counts = Dialect::ALL.map(|dialect| (dialect, 0));
        for shard in &self.shards {
            let users = shard.lock();
            for socket in users.values().flat_map(|local| &local.sockets) {
                let dialect = socket.queue.wire().dialect;
                counts.iter_mut().filter(|(known, _)| *known == dialect).for_each(|(_, count)| *count += 1);
            }
        }
        counts.to_vec()
    }

    /// How many users have one.
    #[must_use]
    pub fn user_count(&self) -> usize {
        self.users.load(Relaxed)
    }

    fn shard(&self, user: &str) -> &Mutex<HashMap<UserId, LocalUser>> {
        let place = usize::try_from(self.hasher.hash_one(user) % SHARDS as u64).unwrap_or(0);
        #[expect(clippy::indexing_slicing, reason = "the place is below the number of shards")]
        &self.shards[place]
    }

    fn with_shard<T>(&self, user: &UserId, act: impl FnOnce(&mut HashMap<UserId, LocalUser>) -> T) -> T {
        act(&mut self.shard(user.as_str()).lock())
    }

    fn with_user<T>(&self, user: &UserId, act: impl FnOnce(&mut LocalUser) -> T) -> Option<T> {
        self.with_shard(user, |users| users.get_mut(user).map(act))
    }
}
