//! Which sockets of which user this node holds. Senders never look here: only what comes back from the backbone does.
//!
//! Sharded, so that no lock is common to all users; no lock is held while anything waits.

mod listing;
mod log_event;
mod recent;
mod sweep;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use shared::{CloseCode, Dialect, Epoch, UserId};
use smallvec::SmallVec;

use crate::clock::coarse_s;
use crate::delivery::frames::Frames;
use crate::delivery::send_queue::{AlreadySeen, PushOutcome, SendQueue, Source};
use crate::switches;
use recent::Recent;

pub use listing::ListedSocket;
pub use log_event::LogEvent;
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
    /// It was here when the user's epoch changed: what it had before that must not come again.
    is_older: bool,
}

/// A user with sockets on this node.
#[derive(Debug, Default)]
struct LocalUser {
    sockets: SmallVec<[LocalSocket; 1]>,
    epoch: Option<Epoch>,
    /// What the sockets were given lately; nothing for an idle user.
    recent: Option<Box<Recent>>,
    /// Coarse seconds of the last presence refresh.
    refreshed_s: u32,
    /// Coarse seconds of the last check of the log for silent loss.
    checked_s: u32,
    healing: bool,
    /// While it was being healed, somebody asked for that again.
    heal_again: bool,
}

/// Users and their sockets.
#[derive(Debug)]
pub struct Registry {
    shards: Box<[Mutex<HashMap<UserId, LocalUser>>]>,
    hasher: RandomState,
    sockets: AtomicUsize,
    users: AtomicUsize,
    per_user_max: usize,
}

/// The user has as many sockets as they may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

/// How a durable event met the user's sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PushTally {
    /// Sockets that will write it.
    pub queued: u32,
    /// Ephemeral events that found no room.
    pub dropped: u32,
    /// Sockets closed for being slow.
    pub overflowed: u32,
    /// Some socket lacks events before it, or is still joining.
    pub gap: bool,
    /// Joined sockets that lack events before it.
    pub missed: u32,
}

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
        }
    }

    /// Adds a socket; its gate is still closed.
    pub fn add(&self, user: &UserId, connection: u64, queue: Arc<SendQueue>, expires_s: u32) -> Result<(), TooMany> {
        self.with_shard(user, |users| {
            let local = users.entry(user.clone()).or_insert_with(|| {
                self.users.fetch_add(1, Ordering::Relaxed);
                LocalUser { refreshed_s: coarse_s(), checked_s: coarse_s(), ..LocalUser::default() }
            });
            if self.per_user_max > 0 && local.sockets.len() >= self.per_user_max {
                return Err(TooMany);
            }
            let opened_s = coarse_s();
            let socket =
                LocalSocket { connection, queue, expires_s, opened_s, issued_s: 0, pinged_for_s: 0, is_older: false };
            local.sockets.push(socket);
            self.sockets.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
    }

    /// Removes a socket; whether it was the user's last one here.
    pub fn remove(&self, user: &UserId, connection: u64) -> bool {
        self.with_shard(user, |users| {
            let Some(local) = users.get_mut(user) else { return false };
            let before = local.sockets.len();
            local.sockets.retain(|socket| socket.connection != connection);
            self.sockets.fetch_sub(before - local.sockets.len(), Ordering::Relaxed);
            let last = local.sockets.is_empty();
            if last {
                users.remove(user);
                self.users.fetch_sub(1, Ordering::Relaxed);
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

    /// Closes the user's sockets whose tokens were issued up to that second: how many.
    pub fn close_issued_until(&self, user: &UserId, revoked_s: i64, code: CloseCode) -> usize {
        let worthless = |socket: &&LocalSocket| i64::from(socket.issued_s) <= revoked_s;
        let close = |local: &mut LocalUser| {
            local.sockets.iter().filter(worthless).map(|socket| socket.queue.close(code)).count()
        };
        self.with_user(user, close).unwrap_or(0)
    }

    /// Acts on the queue of one socket.
    pub fn with_queue(&self, user: &UserId, connection: u64, act: impl FnOnce(&SendQueue)) {
        self.with_user(user, |local| {
            if let Some(socket) = local.sockets.iter().find(|socket| socket.connection == connection) {
                act(&socket.queue);
            }
        });
    }

    /// Hands a durable event to every socket of the user for which it is the next one.
    pub fn push_durable(&self, user: &str, event: &LogEvent<'_>) -> PushTally {
        let mut spread = PushTally::default();
        let mut users = self.shard(user).lock();
        if let Some(local) = users.get_mut(user) {
            local.push(event, Source::Live(event.accepted_at), &mut spread);
        }
        spread
    }

    /// Hands a message to the user's sockets without `seq`, because the backbone is away.
    pub fn push_direct(&self, user: &str, message: u64, frames: &Frames<'_>, tried_at: Instant) -> PushTally {
        let temp_id = || frames.brought().and_then(|brought| brought.temp_id.as_deref());
        self.push(user, |queue| {
            let is_muted = |had: &mut AlreadySeen| temp_id().is_some_and(|temp_id| had.take_muted(temp_id));
            queue.push_direct(message, frames.on(queue.wire()), tried_at, is_muted)
        })
    }

    /// Hands a message that is not stored yet to those of the user's sockets whose dialect takes it.
    pub fn push_live(&self, user: &str, message: u64, frames: &Frames<'_>, tried_at: Instant) -> PushTally {
        let temp_id = || frames.brought().and_then(|brought| brought.temp_id.as_deref());
        self.push(user, |queue| {
            if !queue.wire().dialect.delivers_without_store() {
                return PushOutcome::Silent;
            }
            let is_muted = |had: &mut AlreadySeen| temp_id().is_some_and(|temp_id| had.take_muted(temp_id));
            queue.push_direct(message, frames.on(queue.wire()), tried_at, is_muted)
        })
    }

    /// The same as [`Registry::push_durable`] for an event read from the log of `epoch`; nothing happens when the sockets count under another one.
    pub fn push_logged(&self, user: &str, epoch: &Epoch, event: &LogEvent<'_>) -> PushTally {
        let mut spread = PushTally::default();
        let mut users = self.shard(user).lock();
        if let Some(local) = users.get_mut(user).filter(|local| local.epoch.as_ref() == Some(epoch)) {
            local.push(event, Source::FromLog, &mut spread);
        }
        spread
    }

    /// Hands an ephemeral event to every socket of the user.
    pub fn push_ephemeral(&self, user: &str, frames: &Frames<'_>) -> PushTally {
        self.push(user, |queue| queue.push_ephemeral(frames.on(queue.wire()).clone()))
    }

    /// Hands an ephemeral event to every socket.
    pub fn push_everyone(&self, frames: &Frames<'_>) -> PushTally {
        let mut spread = PushTally::default();
        for shard in &self.shards {
            for local in shard.lock().values() {
                for socket in &local.sockets {
                    spread.count(socket.queue.push_ephemeral(frames.on(socket.queue.wire()).clone()));
                }
            }
        }
        spread
    }

    fn push(&self, user: &str, push: impl Fn(&SendQueue) -> PushOutcome) -> PushTally {
        let mut spread = PushTally::default();
        let users = self.shard(user).lock();
        if let Some(local) = users.get(user) {
            local.sockets.iter().for_each(|socket| spread.count(push(&socket.queue)));
        }
        spread
    }

    /// The epoch under which the user's sockets count; `None` until the first one has joined.
    pub fn epoch(&self, user: &str) -> Option<Epoch> {
        self.shard(user).lock().get(user).and_then(|local| local.epoch.clone())
    }

    /// Opens one socket's gate at `position` under `epoch`, `first` before everything else. If the user's other sockets
    /// count under another epoch, they lack a `resync`: returns `JoinOutcome::OtherEpoch` after having done nothing.
    pub fn join(
        &self,
        user: &UserId,
        connection: u64,
        epoch: &Epoch,
        position: u64,
        first: bytes::Bytes,
    ) -> JoinOutcome {
        self.with_shard(user, |users| {
            let Some(local) = users.get_mut(user) else { return JoinOutcome::Gone };
            if local.epoch.as_ref().is_some_and(|known| known != epoch) {
                return JoinOutcome::OtherEpoch;
            }
            local.epoch = Some(epoch.clone());
            let Some(socket) = local.sockets.iter().find(|socket| socket.connection == connection) else {
                return JoinOutcome::Gone;
            };
            let (_, gap) = socket.queue.open_at(position, first);
            JoinOutcome::At { gap }
        })
    }

    /// Moves every joined socket of the user to `position` of a new epoch, with `notice` as explanation.
    /// Does nothing when the user counts under that epoch already.
    pub fn change_epoch(&self, user: &str, epoch: &Epoch, position: u64, notice: &Frames<'_>) -> bool {
        let mut users = self.shard(user).lock();
        let Some(local) = users.get_mut(user) else { return false };
        if local.epoch.as_ref() == Some(epoch) {
            return false;
        }
        local.turn_to(epoch);
        for socket in &local.sockets {
            socket.queue.reposition(position, notice.on(socket.queue.wire()).clone());
        }
        true
    }

    /// The user's log was begun anew under `epoch`, with nothing in it yet. A socket that certainly had everything of the old
    /// one is given `position`, any other `resync`; how many of each. Pushes may have been lost without a trace when
    /// `interrupted`, while the user is being healed, and when another server answers (NOLOSS.md, A4).
    /// Does nothing before the first socket has joined, or when the user counts under that epoch already.
    pub fn begin_anew(
        &self,
        user: &str,
        epoch: &Epoch,
        interrupted: bool,
        position: &Frames<'_>,
        resync: &Frames<'_>,
    ) -> (u32, u32) {
        let mut users = self.shard(user).lock();
        let mut told = (0, 0);
        let Some(local) = users.get_mut(user) else { return told };
        let Some(known) = local.epoch.as_ref().filter(|known| *known != epoch) else { return told };
        let doubtful =
            !switches::off("epoch-doubt") && (interrupted || local.healing || server_of(known) != server_of(epoch));
        local.turn_to(epoch);
        for socket in &local.sockets {
            let Some((at, seen)) = socket.queue.position() else { continue };
            if doubtful || seen > at {
                socket.queue.reposition(0, resync.on(socket.queue.wire()).clone());
                told.1 += 1;
            } else {
                socket.queue.reposition(0, position.on(socket.queue.wire()).clone());
                told.0 += 1;
            }
        }
        told
    }

    /// Moves the sockets whose position lies before `floor` to `position`, with `notice` as explanation; how many.
    pub fn skip_to(&self, user: &str, floor: u64, position: u64, notice: &Frames<'_>) -> usize {
        let users = self.shard(user).lock();
        let Some(local) = users.get(user) else { return 0 };
        let behind = local.sockets.iter().filter(|socket| socket.queue.position().is_some_and(|(at, _)| at < floor));
        behind.fold(0, |count, socket| {
            socket.queue.reposition(position, notice.on(socket.queue.wire()).clone());
            count + 1
        })
    }

    /// The lowest position among the user's joined sockets that have room for more.
    pub fn lowest(&self, user: &str) -> Option<u64> {
        let users = self.shard(user).lock();
        let with_room = users.get(user)?.sockets.iter().filter(|socket| !socket.queue.is_starved());
        with_room.filter_map(|socket| socket.queue.position()).map(|(position, _)| position).min()
    }

    /// Marks the user as being healed; false if the user is gone, or is being healed already: then that begins once more.
    pub fn begin_heal(&self, user: &str) -> bool {
        let mut users = self.shard(user).lock();
        let Some(local) = users.get_mut(user) else { return false };
        local.heal_again = local.healing;
        !std::mem::replace(&mut local.healing, true)
    }

    /// Ends the healing, unless it was asked for anew since it began and is to go on; whether it goes on.
    pub fn end_heal(&self, user: &str, may_go_on: bool) -> bool {
        let mut users = self.shard(user).lock();
        let Some(local) = users.get_mut(user) else { return false };
        local.checked_s = coarse_s();
        local.healing = std::mem::take(&mut local.heal_again) && may_go_on;
        local.healing
    }

    /// Closes sockets of a user.
    pub fn close_user(&self, user: &UserId, code: CloseCode) -> usize {
        self.with_user(user, |local| {
            local.sockets.iter().for_each(|socket| socket.queue.close(code));
            local.sockets.len()
        })
        .unwrap_or(0)
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
        self.sockets.load(Ordering::Relaxed)
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
        self.users.load(Ordering::Relaxed)
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

impl LocalUser {
    fn push(&mut self, event: &LogEvent<'_>, came: Source, spread: &mut PushTally) {
        let message = event.message();
        let repeats = message.zip(self.recent.as_ref()).is_some_and(|(message, recent)| recent.had_before(message));
        let queued_before = spread.queued;
        for socket in &self.sockets {
            let (wire, earlier) = (socket.queue.wire(), repeats && socket.is_older && !switches::off("recent"));
            let instead = |had: Option<&mut AlreadySeen>| event.instead(had, earlier, wire, self.epoch.as_ref()?);
            spread.count(socket.queue.push_durable(event.seq, event.frames.on(wire), event.at, came, instead));
        }
        if let Some(message) = message
            && spread.queued > queued_before
        {
            self.recent.get_or_insert_default().note(message);
        }
    }

    /// Every socket that has joined counts under `epoch` from here on.
    fn turn_to(&mut self, epoch: &Epoch) {
        self.epoch = Some(epoch.clone());
        if let Some(recent) = &mut self.recent {
            recent.change_epoch();
        }
        for socket in &mut self.sockets {
            socket.is_older |= socket.queue.position().is_some();
        }
    }
}

/// The part of an epoch that names the backbone's server (NOLOSS.md, A1).
fn server_of(epoch: &Epoch) -> &str {
    epoch.as_str().split('.').next().unwrap_or_default()
}

/// How a join ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinOutcome {
    /// The gate is open; with `gap`, the log has events for it.
    At {
        /// Whether events after the position are known already.
        gap: bool,
    },
    /// The user's other sockets count under another epoch: change that first.
    OtherEpoch,
    /// The socket is gone.
    Gone,
}

impl PushTally {
    fn count(&mut self, pushed: PushOutcome) {
        match pushed {
            PushOutcome::Queued => self.queued += 1,
            PushOutcome::Dropped => self.dropped += 1,
            PushOutcome::Overflow => self.overflowed += 1,
            PushOutcome::Gap => {
                self.gap = true;
                self.missed += 1;
            }
            PushOutcome::Joining => self.gap = true,
            PushOutcome::Silent | PushOutcome::Old | PushOutcome::Full | PushOutcome::Closing => {}
        }
    }
}
