//! How an event meets the sockets of a user: each gets what its gate lets pass, and the tally says what became of it.

use std::time::Instant;

use shared::Epoch;

use super::{LocalUser, LogEvent, Registry};
use crate::delivery::already_seen::AlreadySeen;
use crate::delivery::envelope::MessageRef;
use crate::delivery::frames::Frames;
use crate::delivery::send_queue::{PushOutcome, SendQueue, Source};
use crate::switches;

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
    /// Hands a durable event to every socket of the user for which it is the next one.
    pub fn push_durable(&self, user: &str, event: &LogEvent<'_>) -> PushTally {
        let mut tally = PushTally::default();
        let mut users = self.shard(user).lock();
        if let Some(local) = users.get_mut(user) {
            local.push(event, Source::Live(event.accepted_at), &mut tally);
        }
        tally
    }

    /// Hands a message to the user's sockets without `seq`, because the backbone is away.
    pub fn push_direct(
        &self,
        user: &str,
        message: &MessageRef<'_>,
        frames: &Frames<'_>,
        tried_at: Instant,
    ) -> PushTally {
        let (id, temp_id) = (message.id.get(), message.temp_id.as_deref());
        self.push(user, |queue| queue.push_direct(id, temp_id, frames.on(queue.wire()), tried_at))
    }

    /// Hands a message that is not stored yet to those of the user's sockets whose dialect takes it.
    pub fn push_live(&self, user: &str, message: &MessageRef<'_>, frames: &Frames<'_>, tried_at: Instant) -> PushTally {
        let (id, temp_id) = (message.id.get(), message.temp_id.as_deref());
        self.push(user, |queue| match queue.wire().dialect.delivers_without_store() {
            true => queue.push_direct(id, temp_id, frames.on(queue.wire()), tried_at),
            false => PushOutcome::Silent,
        })
    }

    /// The same as [`Registry::push_durable`] for an event that was read from the log of `epoch`. Nothing happens when the
    /// sockets count under another one.
    pub fn push_logged(&self, user: &str, epoch: &Epoch, event: &LogEvent<'_>) -> PushTally {
        let mut tally = PushTally::default();
        let mut users = self.shard(user).lock();
        if let Some(local) = users.get_mut(user).filter(|local| local.epoch.as_ref() == Some(epoch)) {
            local.push(event, Source::FromLog, &mut tally);
        }
        tally
    }

    /// Hands an ephemeral event to every socket of the user.
    pub fn push_ephemeral(&self, user: &str, frames: &Frames<'_>) -> PushTally {
        self.push(user, |queue| queue.push_ephemeral(frames.on(queue.wire()).clone()))
    }

    /// Hands an ephemeral event to every socket.
    pub fn push_everyone(&self, frames: &Frames<'_>) -> PushTally {
        let mut tally = PushTally::default();
        for shard in &self.shards {
            for local in shard.lock().values() {
                for socket in &local.sockets {
                    tally.count(socket.queue.push_ephemeral(frames.on(socket.queue.wire()).clone()));
                }
            }
        }
        tally
    }

    fn push(&self, user: &str, push: impl Fn(&SendQueue) -> PushOutcome) -> PushTally {
        let mut tally = PushTally::default();
        let users = self.shard(user).lock();
        if let Some(local) = users.get(user) {
            local.sockets.iter().for_each(|socket| tally.count(push(&socket.queue)));
        }
        tally
    }
}

impl LocalUser {
    fn push(&mut self, event: &LogEvent<'_>, source: Source, tally: &mut PushTally) {
        let remembers = !switches::off("recent");
        let message = event.message();
        let repeats = message.zip(self.recent.as_ref()).is_some_and(|(message, recent)| recent.had_before(message));
        let queued_before = tally.queued;
        for socket in &self.sockets {
            let (wire, earlier) = (socket.queue.wire(), remembers && repeats && socket.is_older);
            let instead = |seen: Option<&mut AlreadySeen>| event.instead(seen, earlier, wire, self.epoch.as_ref()?);
            tally.count(socket.queue.push_durable(event.seq, event.frames.on(wire), event.at, source, instead));
        }
        if let Some(message) = message
            && tally.queued > queued_before
        {
            self.recent.get_or_insert_default().note(message);
        }
    }
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
