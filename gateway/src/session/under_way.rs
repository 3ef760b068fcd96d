//! The commands of a connection that were read and are not answered, in the order in which they were read.
//!
//! It says which of them may begin. It starts none and answers none. A connection has one only while it has such commands.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use shared::Command;
use smallvec::SmallVec;
use tokio::time::{Instant, Sleep, sleep_until};

use super::carry_out::{Finished, RunningCommand};
use super::connection::Request;
use super::order::Concern;
use crate::switches;

/// Commands of a connection that are carried out side by side; beside them as many that never wait for a place.
const UNDER_WAY_MAX: usize = 32;
/// Bytes of the frames of a connection's commands that wait, from which on it is not read.
const WAITING_BYTES_MAX: usize = 64 * 1024;
/// How long a command waits.
const WAIT: Duration = Duration::from_secs(1);
/// How long a command waits on a connection whose messages go on while the store is away: longer than the store is given
/// for the message before it.
const WAIT_LIVE: Duration = Duration::from_millis(2_500);

/// A connection's commands.
#[derive(Default)]
pub(super) struct UnderWay {
    /// In the order in which they were read; one of them has room without a further allocation.
    commands: SmallVec<[Entry; 1]>,
    /// The bytes of all entries.
    bytes: usize,
    /// When the first of those that wait has waited for too long.
    alarm: Option<Pin<Box<Sleep>>>,
}

/// A command that was read.
struct Entry {
    concern: Concern,
    /// The bytes of its frame while it waits or is held back; 0 while it is carried out.
    bytes: usize,
    stage: Stage,
}

/// How far a command is.
enum Stage {
    /// It waits for its turn or for a place.
    Waiting(Box<WaitingCommand>),
    /// It is being carried out.
    Running(RunningCommand),
    /// It has ended, and waits until those before it are answered.
    Held(Box<Finished>),
}

/// A command that waits.
struct WaitingCommand {
    request: Request,
    /// When it has waited for too long; `None` for a ping.
    until: Option<Instant>,
}

/// What became of a command.
pub(super) enum Step {
    /// It stays where it is.
    Stays,
    /// It has ended, and was taken out: what it concerned.
    Ended(Finished, Concern),
    /// Its turn has come: it was taken out, to be started.
    Begins(Request, Concern),
}

impl UnderWay {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.commands.len()
    }

    /// Whether the connection's next command may be read.
    pub(super) fn has_room(&self) -> bool {
        self.bytes < WAITING_BYTES_MAX
    }

    /// Whether a command that is read now may begin.
    pub(super) fn admits(&self, concern: Concern) -> bool {
        admits(&self.commands, concern)
    }

    /// Takes a command that has begun, at this place.
    pub(super) fn insert_running(&mut self, place: usize, concern: Concern, command: RunningCommand) {
        self.commands.insert(place, Entry { concern, bytes: 0, stage: Stage::Running(command) });
    }

    /// Takes an answer that has to wait for those before it, at this place; its frame had so many bytes. Like a command it
    /// has one of the places, so that there are never more answers than commands.
    pub(super) fn insert_held(&mut self, place: usize, finished: Finished, bytes: usize) {
        self.bytes += bytes;
        let stage = Stage::Held(Box::new(finished));
        self.commands.insert(place, Entry { concern: Concern::Everything, bytes, stage });
    }

    /// Takes a command that can't begin yet, behind all others; its frame had so many bytes. `is_live`: the connection's
    /// messages go on while the store is away.
    pub(super) fn push_waiting(&mut self, request: Request, concern: Concern, bytes: usize, is_live: bool) {
        let wait = if is_live { WAIT_LIVE } else { WAIT };
        let until = (concern != Concern::Ping).then(|| Instant::now() + wait);
        self.bytes += bytes;
        let stage = Stage::Waiting(Box::new(WaitingCommand { request, until }));
        self.commands.push(Entry { concern, bytes, stage });
    }

    /// Goes on with the command at a place. To be called for one place after the other.
    pub(super) fn step(&mut self, cx: &mut Context<'_>, place: usize, now: Instant) -> Step {
        let Some((before, rest)) = self.commands.split_at_mut_checked(place) else { return Step::Stays };
        let Some(Entry { concern, stage, .. }) = rest.first_mut() else { return Step::Stays };
        let concern = *concern;
        // Behind so many, no place is free: a long queue is not compared with itself.
        let is_near = place < 2 * UNDER_WAY_MAX || concern.is_prompt();
        let (begins, ends) = match stage {
            Stage::Running(command) => {
                let Poll::Ready(finished) = command.as_mut().poll(cx) else { return Step::Stays };
                self.take(place);
                return Step::Ended(finished, concern);
            }
            Stage::Held(_) => (false, place == 0),
            Stage::Waiting(waiting) => {
                (is_near && admits(before, concern), waiting.until.is_some_and(|until| until <= now))
            }
        };
        if !begins && !ends {
            return Step::Stays;
        }
        match self.take(place) {
            Stage::Waiting(waiting) if begins => Step::Begins(waiting.request, concern),
            Stage::Waiting(waiting) => Step::Ended(Finished::waited(waiting.request.reference), concern),
            Stage::Held(finished) => Step::Ended(*finished, concern),
            Stage::Running(_) => Step::Stays,
        }
    }

    /// A direct conversation may be known now: asks again what the commands that wait because of one concern.
    pub(super) fn look_again(&mut self, concern_of: impl Fn(&Command) -> Concern) {
        for Entry { concern, stage, .. } in &mut self.commands {
            if let (Concern::SendTo(_) | Concern::Direct(_), Stage::Waiting(waiting)) = (&concern, stage) {
                *concern = concern_of(&waiting.request.command);
            }
        }
    }

    /// Wakes the session when the first of those that wait has waited for too long.
    pub(super) fn watch(&mut self, cx: &mut Context<'_>) {
        let until = self.commands.iter().find_map(|entry| match &entry.stage {
            Stage::Waiting(waiting) => waiting.until,
            Stage::Running(_) | Stage::Held(_) => None,
        });
        let Some(until) = until else {
            self.alarm = None;
            return;
        };
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if alarm.deadline() != until {
            alarm.as_mut().reset(until);
        }
        if alarm.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }

    fn take(&mut self, place: usize) -> Stage {
        let Entry { bytes, stage, .. } = self.commands.remove(place);
        self.bytes -= bytes;
        stage
    }
}

/// Whether a command may begin behind those that were read before it.
fn admits(before: &[Entry], concern: Concern) -> bool {
    let mut places = UNDER_WAY_MAX;
    for entry in before {
        let (is_started, is_over) = match entry.stage {
            Stage::Waiting(_) => (false, false),
            Stage::Running(_) => (true, false),
            Stage::Held(_) => (true, true),
        };
        if !is_over && !switches::off("order") && concern.waits_for(entry.concern, is_started) {
            return false;
        }
        if concern != Concern::Ping && concern.is_prompt() == entry.concern.is_prompt() {
            places -= 1;
        }
        if places == 0 {
            return false;
        }
    }
    true
}
