//! The way into the task of one large conversation: events, and sockets that come and go. It never waits. What finds no room is
//! left to the store.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use shared::{Place, UserId};
use tokio::sync::Notify;

use super::history::{BYTES_MAX, EVENTS_MAX};
use crate::delivery::send_queue::SendQueue;

/// Events without a place that wait for the task.
const NOTICES_MAX: usize = 64;

/// Where a socket begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Where the conversation is now. The client is told the place, and fetches what was before it.
    Now,
    /// It goes on from here.
    From(Place),
    /// The same, and the client is told the place first: there the connection was made, or its user came in.
    Told(Place),
    /// The client didn't say where it was.
    Unnamed,
    /// The client said something that is no place.
    Invalid,
}

impl Wish {
    /// The place from which the socket goes on, if it has one.
    pub(super) fn place(self) -> Option<Place> {
        match self {
            Self::From(place) | Self::Told(place) => Some(place),
            Self::Now | Self::Unnamed | Self::Invalid => None,
        }
    }
}

/// A socket that is to be given the conversation's events.
#[derive(Debug)]
pub(super) struct Join {
    pub(super) user: UserId,
    pub(super) queue: Arc<SendQueue>,
    pub(super) wish: Wish,
    /// How often the store was read since it came.
    pub(super) reads: u32,
}

/// A socket comes or goes.
#[derive(Debug)]
pub(super) enum Move {
    Join(Join),
    Leave(Arc<SendQueue>),
    /// Its user isn't in the conversation any more, unless that became small.
    LeaveUnlessSmall(Arc<SendQueue>),
}

/// An event without a place, and the users who aren't shown it.
#[derive(Debug)]
pub(super) struct Notice {
    pub(super) envelope: Bytes,
    pub(super) except: Vec<UserId>,
}

/// What has gathered.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// Events as they came, by `rev`.
    pub(super) events: VecDeque<(u64, Bytes)>,
    bytes: usize,
    /// Dropped when there are many.
    pub(super) notices: Vec<Notice>,
    /// The highest `rev` that was heard of without its event.
    pub(super) heard: u64,
    /// In their order: somebody may leave and come back.
    pub(super) moves: Vec<Move>,
    /// Events may be missing, or the conversation may have become small: the store is to be asked.
    pub(super) is_doubtful: bool,
    /// The node ends.
    pub(super) is_closed: bool,
}

/// What gathers for one conversation.
#[derive(Debug, Default)]
pub(super) struct Inlet {
    gathered: Mutex<Gathered>,
    pub(super) woken: Notify,
}

impl Inlet {
    /// Takes an event, if there is room.
    pub(super) fn event(&self, rev: u64, envelope: &[u8]) {
        self.add(|gathered| {
            if gathered.events.len() >= EVENTS_MAX || gathered.bytes + envelope.len() > BYTES_MAX {
                gathered.heard = gathered.heard.max(rev);
                return;
            }
            gathered.bytes += envelope.len();
            gathered.events.push_back((rev, Bytes::copy_from_slice(envelope)));
        });
    }

    /// Takes an event without a place; whether there was room.
    pub(super) fn notice(&self, notice: Notice) -> bool {
        let mut has_room = false;
        self.add(|gathered| {
            has_room = gathered.notices.len() < NOTICES_MAX;
            if has_room {
                gathered.notices.push(notice);
            }
        });
        has_room
    }

    /// Adds something else, and wakes the task.
    pub(super) fn add(&self, add: impl FnOnce(&mut Gathered)) {
        add(&mut self.gathered.lock());
        self.woken.notify_one();
    }

    /// These sockets come or go.
    pub(super) fn moved(&self, queues: &[Arc<SendQueue>], how: impl Fn(Arc<SendQueue>) -> Move) {
        self.add(|gathered| gathered.moves.extend(queues.iter().cloned().map(how)));
    }

    /// All that has gathered.
    pub(super) fn take(&self) -> Gathered {
        std::mem::take(&mut *self.gathered.lock())
    }

    /// Whether nothing has gathered.
    pub(super) fn is_empty(&self) -> bool {
        let gathered = self.gathered.lock();
        gathered.events.is_empty() && gathered.moves.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_notices_wait_than_fit() {
        let inlet = Inlet::default();
        let notice = || Notice { envelope: Bytes::from_static(b"{}"), except: Vec::new() };
        assert!((0..NOTICES_MAX).all(|_| inlet.notice(notice())) && !inlet.notice(notice()));
        assert_eq!(inlet.take().notices.len(), NOTICES_MAX);
        assert!(inlet.notice(notice()));
    }
}
