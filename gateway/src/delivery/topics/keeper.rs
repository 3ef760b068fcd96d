//! The task of one large conversation on this node: it takes its events one after the other, hands each to all members' sockets
//! in slices, and reads the store where something is missing. One read serves all of them.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use shared::event::ResyncReason;
use shared::{ConversationId, Event, Place};
use tokio::time::{Instant, sleep_until};

use super::history::{History, ReadMeaning, Row, Verdict};
use super::inlet::{Gathered, Inlet, Join, Wish};
use super::shown::Shown;
use super::sources::{Head, Missed, Sources};
use super::table::Table;
use crate::backbone::BackboneError;
use crate::delivery::envelope::TopicPayload;
use crate::delivery::frames::{Frames, event_on};
use crate::delivery::registry::PushTally;
use crate::delivery::send_queue::SendQueue;
use crate::switches;

/// Sockets that get an event before other tasks have their turn.
const SLICE: usize = 256;
/// The pause before the store or the backbone is asked again; then it grows.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often sockets that are gone are left out.
const PRUNE_EVERY: Duration = Duration::from_secs(1);
/// How soon a socket is looked at again whose gate isn't open yet.
const SOON: Duration = Duration::from_millis(10);

type Read = BoxFuture<'static, Result<Missed, BackboneError>>;

/// The task's own values.
pub(super) struct Keeper {
    conversation: ConversationId,
    inlet: Arc<Inlet>,
    sources: Arc<Sources>,
    table: Arc<Table>,
    /// `None` until the store was read once.
    history: Option<History>,
    /// Sockets that have everything up to the history's place. Those that are gone are left out now and then.
    members: Vec<Arc<SendQueue>>,
    joins: Vec<Join>,
    /// The highest `rev` that was heard of.
    heard: u64,
    is_doubtful: bool,
    /// What the store said last.
    is_large: bool,
    reading: Option<Read>,
    /// Reads and subscriptions that failed in a row, and when to try again.
    failures: u32,
    again_at: Option<Instant>,
    pruned_at: Instant,
}

impl Keeper {
    pub(super) fn new(
        conversation: ConversationId,
        inlet: Arc<Inlet>,
        sources: Arc<Sources>,
        table: Arc<Table>,
    ) -> Self {
        Self {
            conversation,
            inlet,
            sources,
            table,
            history: None,
            members: Vec::new(),
            joins: Vec::new(),
            heard: 0,
            is_doubtful: false,
            is_large: true,
            reading: None,
            failures: 0,
            again_at: None,
            pruned_at: Instant::now(),
        }
    }

    /// Goes on until no socket here wants the conversation any more.
    pub(super) async fn run(mut self) {
        if !self.subscribe().await {
            return;
        }
        loop {
            let Gathered { events, heard, joins, leaves, is_doubtful, is_closed, .. } = self.inlet.take();
            if is_closed {
                break;
            }
            // While it counts as small, whoever comes knows better.
            self.is_doubtful |= is_doubtful || !self.is_large && !joins.is_empty();
            self.joins.extend(joins);
            self.leave(&leaves);
            self.heard = self.heard.max(heard);
            for (rev, envelope) in events {
                self.take_event(rev, envelope).await;
            }
            let is_waiting = self.serve_joins();
            if self.reading.is_none() && self.again_at.is_none_or(|at| at <= Instant::now()) {
                self.again_at = None;
                self.reading = self.wanted().map(|after| self.read(after));
            }
            if self.pruned_at.elapsed() >= PRUNE_EVERY {
                self.members.retain(|queue| !queue.liveness().is_retired());
                self.pruned_at = Instant::now();
            }
            if self.members.is_empty() && self.joins.is_empty() && self.table.forget(&self.conversation, &self.inlet) {
                break;
            }
            let later = match (is_waiting, self.again_at) {
                (true, _) => Some(Instant::now() + SOON),
                (false, at) => at,
            };
            let inlet = Arc::clone(&self.inlet);
            tokio::select! {
                () = inlet.woken.notified() => {}
                read = next(&mut self.reading) => self.take_read(read).await,
                () = sleep_until(later.unwrap_or_else(Instant::now)), if later.is_some() => {}
            }
        }
        self.sources.backbone.unsubscribe_topic(&self.conversation);
    }

    /// Subscribes; false if nobody wants it any more.
    async fn subscribe(&mut self) -> bool {
        while let Err(error) = self.sources.backbone.subscribe_topic(&self.conversation).await {
            tracing::debug!(conversation = %self.conversation, %error, "a large conversation waits for the backbone");
            let gathered = self.inlet.take();
            self.joins.extend(gathered.joins);
            self.leave(&gathered.leaves);
            self.joins.retain(|join| !join.queue.liveness().is_retired());
            if gathered.is_closed || self.joins.is_empty() && self.table.forget(&self.conversation, &self.inlet) {
                return false;
            }
            tokio::time::sleep(self.pause()).await;
        }
        self.failures = 0;
        true
    }

    fn pause(&mut self) -> Duration {
        self.failures = (self.failures + 1).min(32);
        PAUSE_MAX.min(PAUSE * self.failures)
    }

    async fn take_event(&mut self, rev: u64, envelope: Bytes) {
        let Some(history) = &mut self.history else {
            self.heard = self.heard.max(rev);
            return;
        };
        match history.judge(rev) {
            Verdict::Old => {}
            Verdict::Gap => {
                self.table.metrics.topic_gaps.increment(1);
                self.heard = self.heard.max(rev);
            }
            Verdict::Next => {
                let Some(payload) = TopicPayload::parse(&envelope) else { return };
                self.table.metrics.event(&payload.kind);
                history.pass(Shown::live(payload, envelope.clone()));
                let here = history.place;
                self.give(here).await;
            }
        }
    }

    /// Hands the last part of the history to the members, who were at `before`.
    async fn give(&mut self, before: Place) {
        let own = self.senders_of_latest(before);
        let (mut at, mut tally) = (0, PushTally::default());
        while at < self.members.len() {
            let end = self.members.len().min(at + (SLICE / own.len().max(1)).max(1));
            self.give_slice(at..end, before, &own, &mut tally);
            at = end;
            if at < self.members.len() {
                // Others' events go between: a conversation of ten thousand holds nobody up.
                tokio::task::yield_now().await;
            }
        }
        self.table.count(tally);
    }

    /// For each event of the last part, the sockets here of the user who sent it.
    fn senders_of_latest(&self, before: Place) -> Vec<Vec<Arc<SendQueue>>> {
        let events = self.history.as_ref().map(|history| history.latest_for(before)).unwrap_or_default();
        events.iter().map(|shown| self.table.sockets_of_sender(shown)).collect()
    }

    fn give_slice(&self, slice: Range<usize>, before: Place, own: &[Vec<Arc<SendQueue>>], tally: &mut PushTally) {
        let slice = self.members.get(slice).unwrap_or_default();
        let events = self.history.as_ref().map(|history| history.latest_for(before)).unwrap_or_default();
        for (shown, own) in events.into_iter().zip(own) {
            slice.iter().for_each(|queue| tally.count(shown.push(queue, is_among(own, queue))));
        }
    }

    /// The `rev` behind which the store is to be read now, if it is.
    fn wanted(&self) -> Option<u64> {
        let Some(history) = &self.history else {
            // Without anybody who goes on from somewhere, the place is enough.
            let places = self.joins.iter().filter_map(|join| join.wish.place());
            return Some(places.map(|place| place.rev).min().unwrap_or(u64::MAX));
        };
        let of_joins = self.joins.iter().filter(|join| join.reads == 0).filter_map(|join| join.wish.place());
        let unserved = of_joins.filter(|place| history.missed(*place).is_none() || place.rev > history.place.rev);
        let earliest = unserved.map(|place| place.rev).min();
        let is_behind = self.heard > history.place.rev && !switches::off("topic-heal");
        match (earliest, is_behind || self.is_doubtful) {
            (Some(rev), _) => Some(rev.min(history.place.rev)),
            (None, true) => Some(history.place.rev),
            (None, false) => None,
        }
    }

    fn read(&mut self, after: u64) -> Read {
        self.table.metrics.topic_reads.increment(1);
        self.is_doubtful = false;
        let (sources, conversation) = (Arc::clone(&self.sources), self.conversation.clone());
        self.joins.iter_mut().for_each(|join| join.reads += 1);
        // What is heard of from here on isn't certainly in it.
        self.heard = 0;
        Box::pin(async move { sources.store.missed(&conversation, after).await })
    }

    async fn take_read(&mut self, read: Result<Missed, BackboneError>) {
        let Missed { head, floor, rows } = match read {
            Ok(missed) => missed,
            Err(error) => {
                tracing::debug!(conversation = %self.conversation, %error, "a large conversation could not be read");
                self.joins.iter_mut().for_each(|join| join.reads = 0);
                self.is_doubtful = true;
                self.again_at = Some(Instant::now() + self.pause());
                return;
            }
        };
        (self.failures, self.again_at) = (0, None);
        let Some(Head { place, large }) = head else {
            // It was deleted, as each member's own log says.
            self.joins.clear();
            self.members.clear();
            return;
        };
        self.is_large = large;
        let rows = rows.into_iter().filter_map(Row::of).collect();
        match &mut self.history {
            None => self.history = Some(History::new(floor, place, rows)),
            Some(history) => {
                let before = history.place;
                match history.take_read(floor, place, rows) {
                    ReadMeaning::Nothing => {}
                    ReadMeaning::Rows => {
                        self.table.metrics.topic_healed.increment(1);
                        self.give(before).await;
                    }
                    ReadMeaning::Trimmed => self.resync_members(place),
                }
            }
        }
        if !large {
            // From here on the members' own logs have everything.
            self.serve_joins();
            self.members.clear();
            self.joins.retain(|join| join.reads == 0 || join.queue.position().is_none());
        }
    }

    fn resync_members(&self, place: Place) {
        let notice = Frames::of(&self.resync(ResyncReason::Trimmed, place));
        for queue in &self.members {
            self.table.metrics.topic_resyncs.increment(1);
            queue.push_reply(notice.on(queue.wire()).clone());
        }
    }

    /// Lets in those who can be served now; whether somebody waits for their own gate.
    fn serve_joins(&mut self) -> bool {
        let mut is_waiting = false;
        let joins = std::mem::take(&mut self.joins);
        for join in joins {
            // A socket that is in, or on its way in, stays where it is.
            let is_known = || self.joins.iter().any(|other| Arc::ptr_eq(&other.queue, &join.queue));
            if join.queue.liveness().is_retired() || is_among(&self.members, &join.queue) || is_known() {
                continue;
            }
            if join.queue.position().is_none() {
                is_waiting = true;
                self.joins.push(join);
                continue;
            }
            match self.serve(&join) {
                Served::Yes => self.members.push(join.queue),
                Served::NotYet => self.joins.push(join),
            }
        }
        is_waiting
    }

    fn serve(&self, join: &Join) -> Served {
        let Some(history) = &self.history else { return Served::NotYet };
        let (queue, here) = (&join.queue, history.place);
        let is_read = join.reads > 0 && self.reading.is_none();
        if !self.is_large && !is_read {
            return Served::NotYet;
        }
        let (place, is_told) = match join.wish {
            Wish::From(place) => (place, false),
            Wish::Joined(place) => (place, true),
            _ if !self.is_large => return Served::Yes,
            Wish::Now => {
                self.tell(queue, &self.position(here));
                return Served::Yes;
            }
            Wish::Unnamed => return self.resync_one(queue, ResyncReason::Trimmed),
            Wish::Invalid => return self.resync_one(queue, ResyncReason::Invalid),
        };
        let missed = history.missed(place);
        if !is_read && (missed.is_none() || place.rev > here.rev) {
            return Served::NotYet;
        }
        if is_told {
            self.tell(queue, &self.position(place));
        }
        match missed {
            _ if place.rev > here.rev => self.resync_one(queue, ResyncReason::Future),
            Some(missed) if has_room(queue, &missed) => {
                for shown in missed {
                    shown.push(queue, self.table.is_of_sender(shown, queue));
                }
                Served::Yes
            }
            Some(_) | None => self.resync_one(queue, ResyncReason::Trimmed),
        }
    }

    fn resync_one(&self, queue: &SendQueue, reason: ResyncReason) -> Served {
        self.table.metrics.topic_resyncs.increment(1);
        let here = self.history.as_ref().map(|history| history.place).unwrap_or_default();
        self.tell(queue, &self.resync(reason, here));
        Served::Yes
    }

    fn tell(&self, queue: &SendQueue, event: &Event) {
        queue.push_reply(event_on(queue.wire(), event));
    }

    fn leave(&mut self, leaves: &[Arc<SendQueue>]) {
        if !leaves.is_empty() {
            self.members.retain(|queue| !is_among(leaves, queue));
            self.joins.retain(|join| !is_among(leaves, &join.queue));
        }
    }

    fn position(&self, place: Place) -> Event {
        let Place { rev, seq: last_seq } = place;
        Event::ConversationPosition { conversation_id: self.conversation.clone(), rev, last_seq }
    }

    fn resync(&self, reason: ResyncReason, place: Place) -> Event {
        let Place { rev, seq: last_seq } = place;
        Event::ConversationResync { conversation_id: self.conversation.clone(), reason, rev, last_seq }
    }
}

enum Served {
    Yes,
    NotYet,
}

fn is_among(queues: &[Arc<SendQueue>], queue: &Arc<SendQueue>) -> bool {
    queues.iter().any(|other| Arc::ptr_eq(other, queue))
}

/// Whether a socket can take all of these without being closed for it.
fn has_room(queue: &SendQueue, missed: &[&Shown]) -> bool {
    let bytes: usize = missed.iter().map(|shown| shown.bytes()).sum();
    queue.has_room_for(bytes)
}

/// The read under way; never if there is none.
async fn next(reading: &mut Option<Read>) -> Result<Missed, BackboneError> {
    match reading {
        Some(read) => {
            let outcome = read.await;
            *reading = None;
            outcome
        }
        None => std::future::pending().await,
    }
}
