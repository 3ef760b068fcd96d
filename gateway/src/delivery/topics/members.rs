//! The sockets that have everything of a large conversation up to this node's place, and those on their way in. Both are kept
//! by address, so that none is looked for among ten thousand.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use shared::UserId;

use super::inlet::{Join, Wish};
use crate::delivery::send_queue::SendQueue;

/// With fewer new sockets each is put in its place; more are sorted in.
const FEW: usize = 16;

/// A socket that has everything.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) queue: Arc<SendQueue>,
    pub(super) user: UserId,
}

/// The sockets that have everything, by address.
#[derive(Debug, Default)]
pub(super) struct Members {
    sorted: Vec<Member>,
}

impl Members {
    pub(super) fn len(&self) -> usize {
        self.sorted.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    pub(super) fn slice(&self, range: Range<usize>) -> &[Member] {
        self.sorted.get(range).unwrap_or_default()
    }

    pub(super) fn has(&self, queue: &Arc<SendQueue>) -> bool {
        self.find(queue).is_ok()
    }

    /// Takes sockets in that aren't.
    pub(super) fn add(&mut self, members: Vec<Member>) {
        if members.len() > FEW {
            self.sorted.extend(members);
            self.sorted.sort_by_key(|member| address(&member.queue));
            return;
        }
        for member in members {
            if let Err(place) = self.find(&member.queue) {
                self.sorted.insert(place, member);
            }
        }
    }

    pub(super) fn remove(&mut self, queue: &Arc<SendQueue>) {
        if let Ok(place) = self.find(queue) {
            self.sorted.remove(place);
        }
    }

    /// Leaves out those that are gone.
    pub(super) fn prune(&mut self) {
        self.sorted.retain(|member| !member.queue.liveness().is_retired());
    }

    pub(super) fn clear(&mut self) {
        self.sorted = Vec::new();
    }

    fn find(&self, queue: &Arc<SendQueue>) -> Result<usize, usize> {
        self.sorted.binary_search_by_key(&address(queue), |member| address(&member.queue))
    }
}

/// Sockets on their way in: each waits for its own gate, or for a read of the store.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    joins: HashMap<usize, Join>,
    /// Those that are to be looked at without a read: they are new, or their gate was closed.
    fresh: Vec<usize>,
}

impl Arrivals {
    pub(super) fn is_empty(&self) -> bool {
        self.joins.is_empty()
    }

    /// Whether somebody waits for their own gate.
    pub(super) fn is_at_gate(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// A socket that is on its way in stays where it is.
    pub(super) fn add(&mut self, join: Join) {
        let key = address(&join.queue);
        self.joins.entry(key).or_insert_with(|| {
            self.fresh.push(key);
            join
        });
    }

    pub(super) fn has(&self, queue: &Arc<SendQueue>) -> bool {
        self.joins.contains_key(&address(queue))
    }

    pub(super) fn remove(&mut self, queue: &Arc<SendQueue>) {
        self.joins.remove(&address(queue));
    }

    /// Leaves out those that are gone.
    pub(super) fn prune(&mut self) {
        self.joins.retain(|_, join| !join.queue.liveness().is_retired());
    }

    /// Only those stay that wait for their own gate.
    pub(super) fn keep_at_gate(&mut self) {
        self.joins.retain(|_, join| join.reads == 0 || join.queue.position().is_none());
    }

    /// A read begins: everybody who is here now waits for it.
    pub(super) fn note_read(&mut self) {
        self.joins.values_mut().for_each(|join| join.reads += 1);
    }

    /// It failed.
    pub(super) fn forget_reads(&mut self) {
        self.joins.values_mut().for_each(|join| join.reads = 0);
    }

    /// The wishes of those for whom the store wasn't read yet.
    pub(super) fn unread(&self) -> impl Iterator<Item = Wish> {
        self.joins.values().filter(|join| join.reads == 0).map(|join| join.wish)
    }

    /// Those that are to be looked at now; `all` after a read.
    pub(super) fn due(&mut self, all: bool) -> Vec<usize> {
        let fresh = std::mem::take(&mut self.fresh);
        if all { self.joins.keys().copied().collect() } else { fresh }
    }

    /// Serves those whose gate is open; the sockets that are in now.
    pub(super) fn serve(&mut self, due: &[usize], mut serve: impl FnMut(&Join) -> bool) -> Vec<Member> {
        let mut served = Vec::new();
        for key in due {
            let Some(join) = self.joins.get(key) else { continue };
            if join.queue.position().is_none() && !join.queue.liveness().is_retired() {
                self.fresh.push(*key);
            } else if join.queue.liveness().is_retired() || serve(join) {
                served.extend(self.joins.remove(key).map(|Join { queue, user, .. }| Member { queue, user }));
            }
        }
        served.retain(|member| !member.queue.liveness().is_retired());
        served
    }
}

fn address(queue: &Arc<SendQueue>) -> usize {
    Arc::as_ptr(queue).addr()
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::Wire;

    fn members_of(queues: &[Arc<SendQueue>]) -> Vec<Member> {
        let user = UserId::parse("u").expect("an id");
        queues.iter().map(|queue| Member { queue: Arc::clone(queue), user: user.clone() }).collect()
    }

    fn queues(count: usize) -> Vec<Arc<SendQueue>> {
        (0..count).map(|_| Arc::new(SendQueue::new(1 << 20, Wire::CHAT))).collect()
    }

    #[test]
    fn each_socket_is_in_once_until_it_goes() {
        let (some, many) = (queues(3), queues(40));
        let mut members = Members::default();
        for queues in [&some, &some, &many] {
            members.add(members_of(queues));
        }
        assert_eq!(members.len(), 43);
        assert!(some.iter().chain(&many).all(|queue| members.has(queue)));
        members.remove(&some[1]);
        some[2].liveness().retire();
        members.prune();
        assert!(!members.has(&some[1]) && !members.has(&some[2]) && members.has(&some[0]));
        assert_eq!((members.len(), members.slice(0..41).len(), members.slice(0..42).len()), (41, 41, 0));
    }

    #[test]
    fn who_waits_is_looked_at_again_when_that_may_help() {
        let user = UserId::parse("u").expect("an id");
        let all = queues(3);
        let mut arrivals = Arrivals::default();
        for queue in &all {
            let join = |wish| Join { user: user.clone(), queue: Arc::clone(queue), wish, reads: 0 };
            arrivals.add(join(Wish::Now));
            arrivals.add(join(Wish::Unnamed));
        }
        assert!(arrivals.unread().all(|wish| wish == Wish::Now), "the first wish stays");
        all[1].open_at(1, bytes::Bytes::new());
        all[2].liveness().retire();
        let due = arrivals.due(false);
        assert_eq!(arrivals.serve(&due, |_| false).len(), 0);
        assert!(arrivals.is_at_gate());
        all[0].open_at(1, bytes::Bytes::new());
        // The first was at its gate. The second waits for a read, which ends now.
        let due = arrivals.due(false);
        assert_eq!(arrivals.serve(&due, |_| true).len(), 1);
        arrivals.note_read();
        assert_eq!(arrivals.unread().count(), 0);
        let due = arrivals.due(true);
        assert_eq!(arrivals.serve(&due, |join| join.reads == 1).len(), 1);
        assert!(arrivals.is_empty() && !arrivals.is_at_gate());
    }
}
