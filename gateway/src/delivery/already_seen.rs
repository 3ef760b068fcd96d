//! Messages that one socket must not get as they are when the log brings them: it had them already, or sent them itself.
//!
//! Few sockets have any, so a send queue keeps this in a box that it makes and drops. It decides about no event's place.

use std::collections::VecDeque;

/// Messages handed over without `seq` that may be outstanding on one socket (NOLOSS.md, B10).
pub const DIRECT_MAX: usize = 1000;

/// Sends of one connection whose echo is still to come and is not wanted; the oldest is forgotten first.
const MUTED_MAX: usize = 256;

/// Messages of one socket whose event in the log is still to come.
#[derive(Debug, Default)]
pub struct AlreadySeen {
    /// The ids of messages that were handed over without `seq`, because the backbone was away.
    direct: Vec<u64>,
    /// The `tempId`s of messages that this connection sent and wants no echo of, oldest first.
    muted: VecDeque<Box<str>>,
}

impl AlreadySeen {
    /// Whether no event is still to come.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.direct.is_empty() && self.muted.is_empty()
    }

    /// Whether [`DIRECT_MAX`] messages that were handed over without `seq` are outstanding.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.direct.len() >= DIRECT_MAX
    }

    /// Whether this message was handed over without `seq`.
    #[must_use]
    pub fn has_direct(&self, message: u64) -> bool {
        self.direct.contains(&message)
    }

    /// This message is handed over without `seq`.
    pub fn note_direct(&mut self, message: u64) {
        self.direct.push(message);
    }

    /// Whether this message was handed over; it isn't outstanding any more.
    pub fn take_direct(&mut self, message: u64) -> bool {
        let place = self.direct.iter().position(|known| *known == message);
        place.map(|place| self.direct.swap_remove(place)).is_some()
    }

    /// This connection is about to send a message with this `tempId`, and wants no echo of it.
    pub fn mute(&mut self, temp_id: &str) {
        if self.muted.len() >= MUTED_MAX {
            self.muted.pop_front();
        }
        self.muted.push_back(temp_id.into());
    }

    /// Whether this connection sent the message with this `tempId` and wants no echo; it isn't outstanding any more.
    pub fn take_muted(&mut self, temp_id: &str) -> bool {
        let place = self.muted.iter().position(|known| **known == *temp_id);
        place.and_then(|place| self.muted.remove(place)).is_some()
    }
}
