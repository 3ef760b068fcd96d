//! Where in their user's log the sockets are: joining, moving to another epoch, skipping what the log has lost, and being
//! healed. All sockets of a user count under one epoch.

use shared::{Epoch, UserId};

use super::{Doubt, Registry};
use crate::clock::coarse_s;
use crate::delivery::frames::Frames;

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

impl Registry {
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

    /// Moves every joined socket of the user to `position` of a new epoch, with `notice` as explanation: a `resync`, because
    /// nobody knows what they missed (NOLOSS.md, A5). Does nothing when the user counts under that epoch already, and before
    /// the first socket has joined.
    pub fn change_epoch(&self, user: &str, epoch: &Epoch, position: u64, notice: &Frames<'_>) -> bool {
        let mut users = self.shard(user).lock();
        let Some(local) = users.get_mut(user) else { return false };
        if local.epoch.as_ref().is_none_or(|known| known == epoch) {
            return false;
        }
        local.epoch = Some(epoch.clone());
        local.give_up_counts(false);
        self.ask_for_counts(user, local, false);
        for socket in &local.sockets {
            socket.queue.reposition(position, notice.on(socket.queue.wire()).clone());
        }
        true
    }

    /// Moves the sockets whose position lies before `floor` to `position`, with `notice` as explanation; how many.
    pub fn skip_to(&self, user: &str, floor: u64, position: u64, notice: &Frames<'_>) -> usize {
        let mut users = self.shard(user).lock();
        let Some(local) = users.get_mut(user) else { return 0 };
        let behind = local.sockets.iter().filter(|socket| socket.queue.position().is_some_and(|(at, _)| at < floor));
        let moved = behind.fold(0, |count, socket| {
            socket.queue.reposition(position, notice.on(socket.queue.wire()).clone());
            count + 1
        });
        if moved > 0 {
            local.give_up_counts(false);
        }
        self.ask_for_counts(user, local, false);
        moved
    }

    /// The lowest position among the user's joined sockets that have room for more.
    pub fn lowest(&self, user: &str) -> Option<u64> {
        let users = self.shard(user).lock();
        let with_room = users.get(user)?.sockets.iter().filter(|socket| !socket.queue.is_starved());
        with_room.filter_map(|socket| socket.queue.position()).map(|(position, _)| position).min()
    }

    /// Whether a joined socket of the user has a flat dialect, which is given the messages that a marker stands for.
    pub fn has_flat(&self, user: &str) -> bool {
        let users = self.shard(user).lock();
        users.get(user).is_some_and(|local| local.sockets.iter().any(|socket| socket.queue.wire().dialect.is_flat()))
    }

    /// The user's subscription was made anew. Until the log was read, pushes are left to it.
    pub fn raise_doubt(&self, user: &str) {
        if let Some(local) = self.shard(user).lock().get_mut(user) {
            local.doubt = Doubt::Raised;
        }
    }

    /// The log is about to be read.
    pub fn read_doubt(&self, user: &str) {
        if let Some(local) = self.shard(user).lock().get_mut(user)
            && local.doubt == Doubt::Raised
        {
            local.doubt = Doubt::BeingRead;
        }
    }

    /// What was read told the log's epoch. A doubt that was raised behind the read stays.
    pub fn end_doubt(&self, user: &str) {
        if let Some(local) = self.shard(user).lock().get_mut(user)
            && local.doubt == Doubt::BeingRead
        {
            local.doubt = Doubt::None;
        }
    }

    /// Marks the user as being healed; false if the user is gone, or is being healed already. In the latter case the heal
    /// begins once more when it ends.
    pub fn begin_heal(&self, user: &str) -> bool {
        let mut users = self.shard(user).lock();
        let Some(local) = users.get_mut(user) else { return false };
        local.heal_again = local.healing;
        !std::mem::replace(&mut local.healing, true)
    }

    /// Ends the heal, unless another one was requested since it began; whether it goes on. So a heal that gave up while the
    /// backbone was away goes on when the subscription has come back meanwhile.
    pub fn end_heal(&self, user: &str) -> bool {
        let mut users = self.shard(user).lock();
        let Some(local) = users.get_mut(user) else { return false };
        local.checked_s = coarse_s();
        local.healing = std::mem::take(&mut local.heal_again);
        local.healing
    }
}
