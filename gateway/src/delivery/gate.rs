//! The gate of one socket: which durable event may pass.
//!
//! A value without lock, bytes or I/O. It keeps nothing back for later: the log has every event that it refuses, and a
//! reader of the log brings them in order.

/// The position of one socket in its user's log.
///
/// From the moment at which it opens at `position`, exactly the events `position + 1`, `position + 2` and so on pass, each
/// once. Only [`Gate::move_to`] makes an exception, and then the client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// The position isn't known yet: no event passes.
    Joining {
        /// The highest `seq` that was pushed meanwhile; 0 if none was.
        seen: u64,
    },
    /// The next event is `position + 1`.
    Open {
        /// The `seq` of the last event that passed.
        position: u64,
        /// The highest `seq` that was pushed.
        seen: u64,
    },
}

/// What the gate says of a durable event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the next one: it passes.
    Next,
    /// It passed before.
    Old,
    /// Events before it are missing.
    Gap,
    /// The position isn't known yet.
    Joining,
}

impl Gate {
    /// A gate that is closed until [`Gate::open_at`].
    pub const CLOSED: Self = Self::Joining { seen: 0 };

    /// Whether the event `seq` may pass now.
    #[must_use]
    pub const fn judge(&self, seq: u64) -> Verdict {
        match *self {
            Self::Joining { .. } => Verdict::Joining,
            Self::Open { position, .. } if seq <= position => Verdict::Old,
            Self::Open { position, .. } if seq - position == 1 => Verdict::Next,
            Self::Open { .. } => Verdict::Gap,
        }
    }

    /// Notes that the event `seq` was pushed, whether it may pass or not.
    pub fn note(&mut self, seq: u64) {
        let (Self::Joining { seen } | Self::Open { seen, .. }) = self;
        *seen = seq.max(*seen);
    }

    /// The event `seq`, which was judged to be the next one, passes.
    pub fn pass(&mut self, seq: u64) {
        if let Self::Open { position, .. } = self {
            *position = seq;
        }
    }

    /// Opens at `position`; whether events after it were pushed meanwhile, which the log now has to bring.
    pub fn open_at(&mut self, position: u64) -> bool {
        let (Self::Joining { seen } | Self::Open { seen, .. }) = *self;
        *self = Self::Open { position, seen: seen.max(position) };
        seen > position
    }

    /// Moves an open gate to a position of which the client is told; false if it isn't open yet.
    pub fn move_to(&mut self, position: u64) -> bool {
        let is_open = self.is_open();
        if is_open {
            *self = Self::Open { position, seen: position };
        }
        is_open
    }

    /// Whether the position is known.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self, Self::Open { .. })
    }

    /// The position, once the gate is open, and the highest `seq` that was pushed.
    #[must_use]
    pub const fn position(&self) -> Option<(u64, u64)> {
        match *self {
            Self::Joining { .. } => None,
            Self::Open { position, seen } => Some((position, seen)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_next_event_passes() {
        let mut gate = Gate::CLOSED;
        assert_eq!(gate.judge(1), Verdict::Joining);
        assert!(!gate.open_at(5));
        let verdicts = [0, 4, 5, 6, 7, u64::MAX].map(|seq| gate.judge(seq));
        assert_eq!(
            verdicts,
            [Verdict::Old, Verdict::Old, Verdict::Old, Verdict::Next, Verdict::Gap, Verdict::Gap],
            "at position 5"
        );
        gate.pass(6);
        assert_eq!((gate.judge(6), gate.judge(7)), (Verdict::Old, Verdict::Next));
        assert!(gate.move_to(u64::MAX));
        assert_eq!(gate.judge(u64::MAX), Verdict::Old, "nothing overflows");
    }

    #[test]
    fn events_that_were_pushed_while_it_was_closed_are_known_when_it_opens() {
        for (position, missed) in [(6, true), (7, false), (8, false)] {
            let mut gate = Gate::CLOSED;
            gate.note(7);
            gate.note(3);
            assert_eq!(gate.open_at(position), missed, "{position}");
            assert_eq!(gate.position(), Some((position, position.max(7))));
        }
        let mut closed = Gate::CLOSED;
        assert!(!closed.move_to(3), "a socket that is joining will be told its position");
        assert_eq!(closed, Gate::CLOSED);
    }
}
