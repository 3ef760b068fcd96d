//! A durable event on its way to sockets.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use shared::{Epoch, Timestamp, Wire};

use crate::delivery::already_seen::AlreadySeen;
use crate::delivery::envelope::{CountMove, FirstEvent, MessageRef, Turn, first_event};
use crate::delivery::frames::{Frames, position_on};
use crate::delivery::marker::{MarkedEvent, Marker, notification_of};
use crate::delivery::send_queue::{PushOutcome, SendQueue};

/// A durable event on its way to sockets.
#[derive(Debug)]
pub struct LogEvent<'a> {
    pub(super) seq: u64,
    pub(super) frames: Frames<'a>,
    /// The message that the event brings, if it does.
    message: Option<MessageRef<'a>>,
    /// What it says about the user's unread counts.
    pub(super) counts: Option<CountMove<'a>>,
    /// The kept notification that it is, if it is one.
    notification: Option<u64>,
    /// The marker that it is, if it is one.
    pub(super) marker: Option<Marker>,
    /// The messages that markers stand for, if they were read from the store.
    pub(super) marked: Option<&'a [MarkedEvent]>,
    /// The change of the way of a conversation's events that it is, with the sockets that it has passed.
    turn: Option<Box<PassedTurn>>,
    /// When it reached this node: one reading of the clock for all sockets.
    pub(super) at: Instant,
    /// When the message that it brings was accepted; `None` for an event from the log, which isn't measured.
    pub(super) accepted_at: Option<Instant>,
}

/// A change of the way of a conversation's events, and the sockets that it has passed.
#[derive(Debug)]
struct PassedTurn {
    turn: Turn,
    passed: RefCell<Vec<Arc<SendQueue>>>,
}

impl<'a> LogEvent<'a> {
    /// The event `seq` that was published just now: its envelopes as they came, `seq` first, and the message that their check
    /// found.
    #[must_use]
    pub fn live(seq: u64, envelopes: &'a [u8], message: Option<MessageRef<'a>>) -> Self {
        let at = Instant::now();
        // If the store's clock is ahead, the message was accepted just now.
        let age_ms = |time: Timestamp| Timestamp::now().unix_ms().saturating_sub(time.unix_ms());
        let age = message.as_ref().and_then(|message| message.created_at).map(age_ms);
        let age = age.map(|age_ms| Duration::from_millis(u64::try_from(age_ms).unwrap_or(0)));
        let accepted_at = age.and_then(|age| at.checked_sub(age));
        let frames = Frames::new(envelopes, Some(seq));
        let (notification, marker) = named_by(envelopes, message.is_some());
        let turn = turn_in(envelopes, message.is_some());
        Self { seq, frames, message, counts: None, notification, marker, marked: None, turn, at, accepted_at }
    }

    /// The event `seq` as it stands in the log.
    #[must_use]
    pub fn logged(seq: u64, envelopes: &'a [u8]) -> Self {
        let (frames, FirstEvent { message, counts }) = (Frames::new(envelopes, Some(seq)), first_event(envelopes));
        let (notification, marker) = named_by(envelopes, message.is_some());
        let (turn, at) = (turn_in(envelopes, message.is_some()), Instant::now());
        Self { seq, frames, message, counts, notification, marker, marked: None, turn, at, accepted_at: None }
    }

    /// The same event, with what its check found about unread counts.
    #[must_use]
    pub fn with_counts(self, counts: Option<CountMove<'a>>) -> Self {
        Self { counts, ..self }
    }

    /// The same event, with the messages that markers stand for, as they were read from the store.
    #[must_use]
    pub fn with_marked(self, marked: Option<&'a [MarkedEvent]>) -> Self {
        Self { marked, ..self }
    }

    /// Notes a socket that the event has passed, if that matters.
    pub(super) fn note_passed(&self, pushed: PushOutcome, queue: &Arc<SendQueue>) {
        if let (Some(turn), PushOutcome::Queued | PushOutcome::Silent) = (&self.turn, pushed) {
            turn.passed.borrow_mut().push(Arc::clone(queue));
        }
    }

    /// The turn that it is, if it is one, and the sockets that it has passed.
    pub fn turn(self) -> Option<(Turn, Vec<Arc<SendQueue>>)> {
        let PassedTurn { turn, passed } = *self.turn?;
        Some((turn, passed.into_inner())).filter(|(_, passed)| !passed.is_empty())
    }

    /// The id of the message that the event brings, or of the kept notification that it is.
    pub(super) fn remembered(&self) -> Option<u64> {
        self.message.as_ref().map(|message| message.id.get()).or(self.notification)
    }

    /// The frames for a socket that got the message directly, or sent it and wants no echo: its position in the event's place,
    /// then the companions.
    pub(super) fn instead(&self, seen: Option<&mut AlreadySeen>, wire: Wire, epoch: &Epoch) -> Option<Bytes> {
        let (seen, message) = (seen?, self.message.as_ref()?);
        let is_muted = message.temp_id.as_ref().is_some_and(|temp_id| seen.take_muted(temp_id));
        if !seen.take_direct(message.id.get()) && !is_muted {
            return None;
        }
        let mut frames = position_on(wire, epoch, self.seq).to_vec();
        frames.extend_from_slice(&self.frames.companions_on(wire));
        Some(frames.into())
    }
}

fn turn_in(envelopes: &[u8], brings_message: bool) -> Option<Box<PassedTurn>> {
    let turn = if brings_message { None } else { Turn::of(envelopes) };
    turn.map(|turn| Box::new(PassedTurn { turn, passed: RefCell::default() }))
}

/// The kept notification or the marker that an event is. One that brings a message is neither.
fn named_by(envelopes: &[u8], brings_message: bool) -> (Option<u64>, Option<Marker>) {
    if brings_message {
        return (None, None);
    }
    (notification_of(envelopes).map(shared::NotificationId::get), Marker::of(envelopes))
}
