//! How an event meets the sockets of a user: each gets what its gate lets pass, and the tally says what became of it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use shared::{Epoch, Wire};

use super::{Doubt, LocalSocket, LocalUser, LogEvent, Registry};
use crate::clock::coarse_s;
use crate::delivery::already_seen::AlreadySeen;
use crate::delivery::envelope::{MessageRef, message_of};
use crate::delivery::frames::{Frames, position_on};
use crate::delivery::marker::{MarkedEvent, Marker};
use crate::delivery::send_queue::{PushOutcome, SendQueue, Source};

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
        self.push_event(user, event, Source::Live(event.accepted_at), |_| true)
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
        self.push_event(user, event, Source::FromLog, |local| local.epoch.as_ref() == Some(epoch))
    }

    fn push_event(
        &self,
        user: &str,
        event: &LogEvent<'_>,
        source: Source,
        is_wanted: impl FnOnce(&LocalUser) -> bool,
    ) -> PushTally {
        let mut tally = PushTally::default();
        let mut users = self.shard(user).lock();
        let Some(local) = users.get_mut(user).filter(|local| is_wanted(local)) else { return tally };
        local.push(event, source, &mut tally);
        self.ask_for_counts(user, local, false);
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
        if let Some(marker) = &event.marker {
            // The messages that it stands for have moved counts.
            self.give_up_counts(true);
            return self.push_marker(event, marker, source, tally);
        }
        if self.doubt != Doubt::None && matches!(source, Source::Live(_)) {
            return self.sockets.iter().for_each(|socket| tally.count(socket.queue.leave_to_log(event.seq)));
        }
        let companion = event.counts.as_ref().and_then(|count| self.fold(count, source));
        companion.iter().for_each(|companion| event.frames.follow_with(companion));
        let (queued_before, mut is_told) = (tally.queued, false);
        for socket in &self.sockets {
            let wire = socket.queue.wire();
            let instead = |seen: Option<&mut AlreadySeen>| event.instead(seen, wire, self.epoch.as_ref()?);
            let pushed = socket.queue.push_durable(event.seq, event.frames.on(wire), event.at, source, instead);
            event.note_passed(pushed, &socket.queue);
            is_told |= pushed == PushOutcome::Queued && !wire.dialect.is_flat();
            tally.count(pushed);
        }
        if let (Some(companion), Some(counts), true) = (&companion, &mut self.counts, is_told) {
            counts.note_told(companion);
        }
        if let Some(message) = event.remembered()
            && tally.queued > queued_before
        {
            self.recent.get_or_insert_default().note(message, coarse_s());
        }
    }

    /// A marker is the position of a socket that certainly had its messages, and a `resync` on any other. A flat socket is
    /// given the messages themselves, as soon as they were read from the store.
    fn push_marker(&mut self, event: &LogEvent<'_>, marker: &Marker, source: Source, tally: &mut PushTally) {
        let recent = self.recent.as_deref();
        let mut given = Vec::new();
        let is_here = self.epoch.as_ref() == Some(&marker.epoch);
        for socket in &self.sockets {
            if !is_here {
                // The log was begun anew, and that wasn't heard: the heal tells it.
                tally.count(socket.queue.leave_to_log(event.seq));
                continue;
            }
            let wire = socket.queue.wire();
            let had = |seen: Option<&mut AlreadySeen>, message: u64| {
                recent.is_some_and(|recent| recent.has(message)) || seen.is_some_and(|seen| seen.take_direct(message))
            };
            if !wire.dialect.is_flat() {
                let instead = |mut seen: Option<&mut AlreadySeen>| {
                    let has_lacking = marker
                        .named
                        .iter()
                        .fold(marker.named.is_empty(), |lacks, named| !had(seen.as_deref_mut(), named.get()) || lacks);
                    self.epoch.as_ref().filter(|_| !has_lacking).map(|epoch| position_on(wire, epoch, event.seq))
                };
                tally.count(socket.queue.push_durable(event.seq, event.frames.on(wire), event.at, source, instead));
                continue;
            }
            let Some(marked) = event.marked else {
                tally.count(socket.queue.leave_to_log(event.seq));
                continue;
            };
            let instead = |mut seen: Option<&mut AlreadySeen>| {
                let wanted = marked.iter().filter(|stored| marker.named.contains(&stored.named)).filter(|stored| {
                    let was_here = wire.numbered || socket.was_here_before(stored.age);
                    let is_muted = seen.as_deref_mut().is_some_and(|seen| {
                        let temp_id = message_of(&stored.envelope).and_then(|message| message.temp_id);
                        temp_id.is_some_and(|temp_id| seen.take_muted(&temp_id))
                    });
                    !had(seen.as_deref_mut(), stored.named.get()) && was_here && !is_muted
                });
                let wanted: Vec<&MarkedEvent> = wanted.collect();
                given.extend(wanted.iter().map(|stored| stored.named.get()));
                Some(marked_on(wire, self.epoch.as_ref()?, event.seq, &wanted))
            };
            tally.count(socket.queue.push_durable(event.seq, event.frames.on(wire), event.at, source, instead));
        }
        let recent = (!given.is_empty()).then(|| self.recent.get_or_insert_default()).into_iter();
        recent.for_each(|recent| given.iter().for_each(|message| recent.note(*message, coarse_s())));
    }
}

/// Messages for a flat socket in place of their marker. The last one has the marker's `seq`.
fn marked_on(wire: Wire, epoch: &Epoch, seq: u64, wanted: &[&MarkedEvent]) -> Bytes {
    let mut seq = Some(seq);
    let mut frames: Vec<Bytes> = Vec::with_capacity(wanted.len());
    for stored in wanted.iter().rev() {
        let framed = Frames::new(&*stored.envelope, seq).on(wire).clone();
        if !framed.is_empty() {
            seq = None;
            frames.push(framed);
        }
    }
    if let Some(seq) = seq {
        return position_on(wire, epoch, seq);
    }
    frames.reverse();
    frames.concat().into()
}

impl LocalSocket {
    /// Whether it was its user's before something happened so long ago. In doubt it was.
    fn was_here_before(&self, age: Duration) -> bool {
        let happened_s = i64::from(coarse_s()) - i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        i64::from(self.opened_s) <= happened_s + 1
    }
}

impl PushTally {
    /// Counts what became of one push.
    pub(in crate::delivery) fn count(&mut self, pushed: PushOutcome) {
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
