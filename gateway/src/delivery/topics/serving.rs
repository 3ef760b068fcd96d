//! How the task of a large conversation serves sockets: it lets them in, tells them their places, and how much is unread.

use std::borrow::Cow;
use std::collections::HashSet;

use shared::event::ResyncReason;
use shared::{Event, Place, UserId};
use tokio::time::Instant;

use super::entrance::Entrance;
use super::inlet::Join;
use super::keeper::{Keeper, SLICE};
use super::members::Member;
use super::shown::Shown;
use crate::delivery::envelope::{CountMove, MoveKind};
use crate::delivery::frames::{Frames, event_on};
use crate::delivery::send_queue::SendQueue;

impl Keeper {
    pub(super) fn resync_members(&self, place: Place) {
        let notice = Frames::of(&self.resync(ResyncReason::Trimmed, place));
        for Member { queue, .. } in self.sockets.members.slice(0..self.sockets.members.len()) {
            self.table.metrics.topic_resyncs.increment(1);
            queue.push_reply(notice.on(queue.wire()).clone());
        }
    }

    /// Lets those in who can be served now: the new ones, or after a read all who waited for it.
    pub(super) async fn let_in(&mut self, after_read: bool) {
        let due = self.sockets.arrivals.due(after_read);
        for (turn, slice) in due.chunks(SLICE).enumerate() {
            if turn > 0 {
                tokio::task::yield_now().await;
            }
            let mut arrivals = std::mem::take(&mut self.sockets.arrivals);
            let served = arrivals.serve(slice, |join| self.serve(join));
            self.sockets.arrivals = arrivals;
            self.sockets.members.add(served);
        }
    }

    /// Whether a socket is in now.
    fn serve(&self, join: &Join) -> bool {
        let Some(history) = &self.history else { return false };
        let is_read = join.reads > 0 && self.reading.is_none();
        let entrance = Entrance::of(join.wish, history, self.is_large, is_read);
        let queue = &join.queue;
        match entrance {
            Entrance::NotYet => return false,
            Entrance::Silent => {}
            Entrance::Told => self.tell(queue, &self.position(history.place)),
            Entrance::Behind(told, missed) if has_room(queue, &missed) => {
                told.into_iter().for_each(|place| self.tell(queue, &self.position(place)));
                // Who goes on may have got messages without their count.
                let is_counted = told.is_none() || missed.iter().any(|shown| shown.seq.is_some());
                for shown in missed {
                    shown.push(queue, shown.is_by(&join.user));
                }
                if is_counted {
                    self.fold(&join.user, MoveKind::New { seq: history.place.seq });
                }
            }
            Entrance::Behind(..) => self.resync_one(queue, ResyncReason::Trimmed, history.place),
            Entrance::Resync(reason) => self.resync_one(queue, reason, history.place),
        }
        true
    }

    fn resync_one(&self, queue: &SendQueue, reason: ResyncReason, here: Place) {
        self.table.metrics.topic_resyncs.increment(1);
        self.tell(queue, &self.resync(reason, here));
    }

    fn tell(&self, queue: &SendQueue, event: &Event) {
        queue.push_reply(event_on(queue.wire(), event));
    }

    fn position(&self, place: Place) -> Event {
        let Place { rev, seq: last_seq } = place;
        Event::ConversationPosition { conversation_id: self.conversation.clone(), rev, last_seq }
    }

    fn resync(&self, reason: ResyncReason, place: Place) -> Event {
        let Place { rev, seq: last_seq } = place;
        Event::ConversationResync { conversation_id: self.conversation.clone(), reason, rev, last_seq }
    }

    /// The sender of a message has seen everything before it.
    pub(super) fn fold_own(&self, shown: &Shown) {
        if let (Some((sender, _)), Some(seq)) = (&shown.sender, shown.seq) {
            self.fold(sender, MoveKind::Sent { seq });
        }
    }

    fn fold(&self, user: &UserId, kind: MoveKind) {
        let count = CountMove { conversation: Cow::Borrowed(self.conversation.as_str()), kind };
        self.table.registry.fold_shared(user, &count);
    }

    /// Tells all members how much is unread, at most once a second.
    pub(super) async fn tell_unread(&mut self) {
        let Some(seq) = self.history.as_ref().map(|history| history.place.seq) else { return };
        if !self.unread.takes(seq, Instant::now()) {
            return;
        }
        let mut users: HashSet<UserId> = HashSet::new();
        let mut at = 0;
        while at < self.sockets.members.len() {
            for Member { queue, user } in self.sockets.members.slice(at..self.sockets.members.len().min(at + SLICE)) {
                if !queue.liveness().is_retired() && users.insert(user.clone()) {
                    self.fold(user, MoveKind::New { seq });
                }
            }
            at += SLICE;
            tokio::task::yield_now().await;
        }
    }
}

/// Whether a socket can take all of these without being closed for it.
fn has_room(queue: &SendQueue, missed: &[&Shown]) -> bool {
    let bytes: usize = missed.iter().map(|shown| shown.bytes()).sum();
    queue.has_room_for(bytes)
}
