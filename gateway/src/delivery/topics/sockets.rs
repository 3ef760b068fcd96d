//! The sockets of one large conversation here: those that have everything, those on their way in, and those that may have to go.

use std::sync::Arc;

use super::inlet::Move;
use super::members::{Arrivals, Members};
use crate::delivery::send_queue::SendQueue;

/// The sockets of one conversation.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    pub(super) members: Members,
    pub(super) arrivals: Arrivals,
    /// They go if a read that begins from now on finds the conversation large.
    leaving: Vec<Arc<SendQueue>>,
    /// They go if the read under way does.
    left_by_read: Vec<Arc<SendQueue>>,
}

impl Sockets {
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.arrivals.is_empty()
    }

    /// Sockets come and go; whether the store is to be asked because of it.
    pub(super) fn take(&mut self, moves: Vec<Move>) -> bool {
        for moved in moves {
            match moved {
                Move::Join(join) => {
                    let is_other = |other: &Arc<SendQueue>| !Arc::ptr_eq(other, &join.queue);
                    self.leaving.retain(is_other);
                    self.left_by_read.retain(is_other);
                    // A socket that is in stays where it is.
                    if !self.members.has(&join.queue) {
                        self.arrivals.add(join);
                    }
                }
                Move::Leave(queue) => self.remove(&queue),
                Move::LeaveUnlessSmall(queue) => {
                    if self.members.has(&queue) || self.arrivals.has(&queue) {
                        self.leaving.push(queue);
                    }
                }
            }
        }
        !self.leaving.is_empty()
    }

    /// A read begins.
    pub(super) fn note_read(&mut self) {
        self.arrivals.note_read();
        self.left_by_read.append(&mut self.leaving);
    }

    /// It failed.
    pub(super) fn forget_read(&mut self) {
        self.arrivals.forget_reads();
        self.leaving.append(&mut self.left_by_read);
    }

    /// It found the conversation large, or small.
    pub(super) fn end_read(&mut self, large: bool) {
        for queue in std::mem::take(&mut self.left_by_read) {
            if large {
                self.remove(&queue);
            }
        }
    }

    /// Leaves out those that are gone.
    pub(super) fn prune(&mut self) {
        self.members.prune();
        self.arrivals.prune();
    }

    fn remove(&mut self, queue: &Arc<SendQueue>) {
        self.members.remove(queue);
        self.arrivals.remove(queue);
    }
}

#[cfg(test)]
mod tests {
    use shared::{UserId, Wire};

    use super::super::inlet::{Join, Wish};
    use super::super::members::Member;
    use super::*;

    fn queue() -> Arc<SendQueue> {
        Arc::new(SendQueue::new(1 << 20, Wire::CHAT))
    }

    fn join(queue: &Arc<SendQueue>) -> Move {
        let user = UserId::parse("u").expect("an id");
        Move::Join(Join { user, queue: Arc::clone(queue), wish: Wish::Now, reads: 0 })
    }

    fn leave(queue: &Arc<SendQueue>) -> Move {
        Move::Leave(Arc::clone(queue))
    }

    fn leave_unless_small(queue: &Arc<SendQueue>) -> Move {
        Move::LeaveUnlessSmall(Arc::clone(queue))
    }

    #[test]
    fn who_leaves_and_comes_back_is_there() {
        let (one, other) = (queue(), queue());
        let mut sockets = Sockets::default();
        sockets.take(vec![join(&one), leave(&one), join(&one), join(&other), leave(&other)]);
        assert!(sockets.arrivals.has(&one) && !sockets.arrivals.has(&other));
    }

    #[test]
    fn who_may_have_to_go_waits_for_the_next_read() {
        let all = [queue(), queue(), queue()];
        let [stays, goes, unknown] = &all;
        let mut sockets = Sockets::default();
        let user = UserId::parse("u").expect("an id");
        let member = |queue| Member { queue: Arc::clone(queue), user: user.clone() };
        sockets.members.add(vec![member(stays), member(goes)]);
        assert!(!sockets.take(vec![leave_unless_small(unknown)]));
        sockets.note_read();
        assert!(sockets.take(vec![leave_unless_small(stays), leave_unless_small(goes)]));
        sockets.end_read(true);
        assert!(sockets.members.has(goes), "that read began before");
        sockets.note_read();
        sockets.forget_read();
        sockets.note_read();
        // Back again.
        sockets.take(vec![join(stays)]);
        sockets.end_read(true);
        assert!(sockets.members.has(stays) && !sockets.members.has(goes));
        sockets.take(vec![leave_unless_small(stays)]);
        sockets.note_read();
        sockets.end_read(false);
        assert!(sockets.members.has(stays), "it gets the rest of what was said while it was large");
    }
}
