//! A durable event on its way to sockets.

use std::time::{Duration, Instant};

use bytes::Bytes;
use shared::{Epoch, Timestamp, Wire};

use crate::delivery::already_seen::AlreadySeen;
use crate::delivery::frames::{Frames, position_on};

/// A durable event on its way to sockets.
#[derive(Debug)]
pub struct LogEvent<'a> {
    pub(super) seq: u64,
    pub(super) frames: Frames<'a>,
    /// When it reached this node: one reading of the clock for all sockets.
    pub(super) at: Instant,
    /// When the message that it brings was accepted.
    pub(super) accepted_at: Option<Instant>,
}

impl<'a> LogEvent<'a> {
    /// The event `seq`, of which these are the envelopes as they came, `seq` first.
    #[must_use]
    pub fn new(seq: u64, envelopes: &'a [u8]) -> Self {
        Self { seq, frames: Frames::new(envelopes, Some(seq)), at: Instant::now(), accepted_at: None }
    }

    /// The same for an event that brings a message which was accepted at this time, if it does.
    #[must_use]
    pub fn accepted_at(self, accepted: Option<Timestamp>) -> Self {
        // A store whose clock is ahead has accepted it just now.
        let age_ms = |time: Timestamp| Timestamp::now().unix_ms().saturating_sub(time.unix_ms());
        let age = accepted.map(|time| Duration::from_millis(u64::try_from(age_ms(time)).unwrap_or(0)));
        Self { accepted_at: age.and_then(|age| self.at.checked_sub(age)), ..self }
    }

    /// The message that the event brings, if any.
    pub(super) fn message(&self) -> Option<u64> {
        self.frames.message()
    }

    /// What a socket gets that had the message already: if directly, or under an earlier epoch (`earlier`), its position in
    /// the event's place; if it sent it and wants no echo, nothing; then the companions.
    pub(super) fn instead(
        &self,
        seen: Option<&mut AlreadySeen>,
        earlier: bool,
        wire: Wire,
        epoch: &Epoch,
    ) -> Option<Bytes> {
        if seen.is_none() && !earlier {
            return None;
        }
        let brought = self.frames.brought()?;
        let is_known = seen.is_some_and(|seen| {
            let is_muted = brought.temp_id.as_ref().is_some_and(|temp_id| seen.take_muted(temp_id));
            seen.take_direct(brought.message) || is_muted
        });
        if !is_known && !earlier {
            return None;
        }
        let mut frames = position_on(wire, epoch, self.seq).to_vec();
        frames.extend_from_slice(&self.frames.companions_on(wire));
        Some(frames.into())
    }
}
