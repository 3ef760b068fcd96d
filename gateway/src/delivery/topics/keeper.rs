//! The task of one large conversation on this node: it takes its events one after the other, hands each to all members' sockets
//! in slices, and reads the store where something is missing. One read serves all of them.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use shared::{ConversationId, Place};
use tokio::time::{Instant, sleep_until};

use super::ahead::Ahead;
use super::history::{History, ReadMeaning, Row, Verdict};
use super::inlet::{Gathered, Inlet, Notice, Wish};
use super::members::Member;
use super::shown::Shown;
use super::sockets::Sockets;
use super::sources::{Head, Missed, Sources};
use super::table::Table;
use super::unread::Unread;
use crate::backbone::BackboneError;
use crate::delivery::envelope::TopicPayload;
use crate::delivery::frames::Frames;
use crate::delivery::registry::PushTally;
use crate::delivery::send_queue::SendQueue;
use crate::switches;

/// Sockets that are served before other tasks have their turn.
pub(super) const SLICE: usize = 256;
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
    pub(super) conversation: ConversationId,
    inlet: Arc<Inlet>,
    sources: Arc<Sources>,
    pub(super) table: Arc<Table>,
    /// `None` until the store was read once.
    pub(super) history: Option<History>,
    /// Those that are gone are left out now and then.
    pub(super) sockets: Sockets,
    /// Events behind the history's place that can't pass yet.
    ahead: Ahead,
    /// The highest `rev` that was heard of without its event.
    heard: u64,
    is_doubtful: bool,
    /// What the store said last.
    pub(super) is_large: bool,
    pub(super) reading: Option<Read>,
    /// Reads and subscriptions that failed in a row, and when to try again.
    failures: u32,
    again_at: Option<Instant>,
    pruned_at: Instant,
    pub(super) unread: Unread,
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
            sockets: Sockets::default(),
            ahead: Ahead::default(),
            heard: 0,
            is_doubtful: false,
            is_large: true,
            reading: None,
            failures: 0,
            again_at: None,
            pruned_at: Instant::now(),
            unread: Unread::default(),
        }
    }

    /// Goes on until no socket here wants the conversation any more.
    pub(super) async fn run(mut self) {
        if !self.subscribe().await {
            return;
        }
        loop {
            let Gathered { events, notices, heard, moves, is_doubtful, is_closed, .. } = self.inlet.take();
            if is_closed {
                break;
            }
            // While it counts as small, whoever comes knows better.
            self.is_doubtful |= is_doubtful || !self.is_large && !moves.is_empty();
            self.is_doubtful |= self.sockets.take(moves);
            self.heard = self.heard.max(heard);
            for (rev, envelope) in events {
                self.take_event(rev, envelope).await;
            }
            for notice in notices {
                self.give_notice(notice).await;
            }
            self.let_in(false).await;
            self.tell_unread().await;
            if self.reading.is_none() && self.again_at.is_none_or(|at| at <= Instant::now()) {
                self.again_at = None;
                self.reading = self.wanted().map(|after| self.read(after));
            }
            if self.pruned_at.elapsed() >= PRUNE_EVERY {
                self.sockets.prune();
                self.pruned_at = Instant::now();
            }
            if self.sockets.is_empty() && self.table.forget(&self.conversation, &self.inlet) {
                break;
            }
            let (inlet, later) = (Arc::clone(&self.inlet), self.later());
            tokio::select! {
                () = inlet.woken.notified() => {}
                read = next(&mut self.reading) => self.take_read(read).await,
                () = sleep_until(later.unwrap_or_else(Instant::now)), if later.is_some() => {}
            }
        }
        self.sources.backbone.unsubscribe_topic(&self.conversation);
    }

    /// When something is due that nothing wakes for.
    fn later(&self) -> Option<Instant> {
        let gate = self.sockets.arrivals.is_at_gate().then(|| Instant::now() + SOON);
        let again = if self.reading.is_some() { None } else { self.again_at.or_else(|| self.ahead.lost_at()) };
        let again = again.filter(|_| !switches::off("topic-heal"));
        let unread = self.history.as_ref().and_then(|history| self.unread.due_at(history.place.seq));
        gate.into_iter().chain(again).chain(unread).min()
    }

    /// Subscribes; false if nobody wants it any more.
    async fn subscribe(&mut self) -> bool {
        while let Err(error) = self.sources.backbone.subscribe_topic(&self.conversation).await {
            tracing::debug!(conversation = %self.conversation, %error, "a large conversation waits for the backbone");
            let gathered = self.inlet.take();
            self.sockets.take(gathered.moves);
            self.sockets.prune();
            if gathered.is_closed || self.sockets.is_empty() && self.table.forget(&self.conversation, &self.inlet) {
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
        match self.history.as_ref().map(|history| history.judge(rev)) {
            Some(Verdict::Old) => return,
            Some(Verdict::Gap) => self.table.metrics.topic_gaps.increment(1),
            Some(Verdict::Next) | None => {}
        }
        if !self.ahead.keep(rev, envelope, Instant::now()) {
            self.heard = self.heard.max(rev);
        }
        self.pass_on().await;
    }

    /// Hands on what is next, and what waited for it.
    async fn pass_on(&mut self) {
        while let Some(history) = &mut self.history
            && let Some(envelope) = self.ahead.next(history.place.rev, Instant::now())
        {
            let Some(payload) = TopicPayload::parse(&envelope) else { continue };
            self.table.metrics.event(&payload.kind);
            history.pass(Shown::live(payload, envelope.clone()));
            let here = history.place;
            self.give(here).await;
        }
    }

    /// Hands the last part of the history to the members, who were at `before`.
    async fn give(&mut self, before: Place) {
        let own = self.senders_of_latest(before);
        let (mut at, mut tally) = (0, PushTally::default());
        while at < self.sockets.members.len() {
            let end = self.sockets.members.len().min(at + (SLICE / own.len().max(1)).max(1));
            self.give_slice(at..end, before, &own, &mut tally);
            at = end;
            if at < self.sockets.members.len() {
                // Others' events go between: a conversation of ten thousand holds nobody up.
                tokio::task::yield_now().await;
            }
        }
        self.table.count(tally);
        let history = self.history.as_ref();
        let given = history.map(|history| history.latest_for(before)).unwrap_or_default();
        given.into_iter().for_each(|shown| self.fold_own(shown));
    }

    /// Hands an event without a place to the members.
    async fn give_notice(&mut self, Notice { envelope, except }: Notice) {
        let frames = Frames::new(envelope.to_vec(), None);
        let hidden: Vec<_> = except.iter().flat_map(|user| self.table.registry.queues_of(user)).collect();
        let (mut at, mut tally) = (0, PushTally::default());
        while at < self.sockets.members.len() {
            let end = self.sockets.members.len().min(at + SLICE);
            for Member { queue, .. } in self.sockets.members.slice(at..end) {
                if !hidden.iter().any(|hidden| Arc::ptr_eq(hidden, queue)) {
                    tally.count(queue.push_ephemeral(frames.on(queue.wire()).clone()));
                }
            }
            at = end;
            tokio::task::yield_now().await;
        }
        self.table.count(tally);
    }

    /// For each event of the last part, the sockets here of the user who sent it.
    fn senders_of_latest(&self, before: Place) -> Vec<Vec<Arc<SendQueue>>> {
        let events = self.history.as_ref().map(|history| history.latest_for(before)).unwrap_or_default();
        events.iter().map(|shown| self.table.sockets_of_sender(shown)).collect()
    }

    fn give_slice(&self, slice: Range<usize>, before: Place, own: &[Vec<Arc<SendQueue>>], tally: &mut PushTally) {
        let events = self.history.as_ref().map(|history| history.latest_for(before)).unwrap_or_default();
        for (shown, own) in events.into_iter().zip(own) {
            for Member { queue, .. } in self.sockets.members.slice(slice.clone()) {
                let is_own = own.iter().any(|other| Arc::ptr_eq(other, queue));
                tally.count(shown.push(queue, is_own));
            }
        }
    }

    /// The `rev` behind which the store is to be read now, if it is. For those who were away it is read as far back as is kept:
    /// so one read serves all of them.
    fn wanted(&self) -> Option<u64> {
        let unread = self.sockets.arrivals.unread();
        let Some(history) = &self.history else {
            // Without anybody who goes on from somewhere, the place is enough.
            return Some(unread.map(from).min().unwrap_or(u64::MAX));
        };
        let (mut before, mut is_ahead) = (None, false);
        for wish in unread {
            let (reaches, rev) = wish.place().map_or((true, 0), |place| (history.reaches(place), place.rev));
            before = if reaches { before } else { Some(before.map_or(from(wish), |rev: u64| rev.min(from(wish)))) };
            is_ahead |= rev > history.place.rev;
        }
        let is_lost = self.ahead.lost_at().is_some_and(|at| at <= Instant::now());
        let is_behind = (self.heard > history.place.rev || is_lost) && !switches::off("topic-heal");
        before.or_else(|| (is_ahead || is_behind || self.is_doubtful).then_some(history.place.rev))
    }

    fn read(&mut self, after: u64) -> Read {
        self.table.metrics.topic_reads.increment(1);
        self.is_doubtful = false;
        let (sources, conversation) = (Arc::clone(&self.sources), self.conversation.clone());
        self.sockets.note_read();
        // What is heard of from here on isn't certainly in it.
        self.heard = 0;
        Box::pin(async move { sources.store.missed(&conversation, after).await })
    }

    async fn take_read(&mut self, read: Result<Missed, BackboneError>) {
        let Missed { head, floor, rows } = match read {
            Ok(missed) => missed,
            Err(error) => {
                tracing::debug!(conversation = %self.conversation, %error, "a large conversation could not be read");
                self.sockets.forget_read();
                self.is_doubtful = true;
                self.again_at = Some(Instant::now() + self.pause());
                return;
            }
        };
        (self.failures, self.again_at) = (0, None);
        let Some(Head { place, large }) = head else {
            // It was deleted, as each member's own log says.
            (self.sockets, self.history) = (Sockets::default(), None);
            return;
        };
        self.is_large = large;
        self.sockets.end_read(large);
        let rows = rows.into_iter().filter_map(Row::of).collect();
        match &mut self.history {
            None => {
                self.unread = Unread::up_to(place.seq);
                self.history = Some(History::new(floor, place, rows));
            }
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
        self.pass_on().await;
        self.let_in(true).await;
        if !large {
            // From here on the members' own logs have everything.
            self.sockets.members.clear();
            self.sockets.arrivals.keep_at_gate();
            self.ahead.clear();
        }
    }
}

/// How far back the store is read for a wish.
fn from(wish: Wish) -> u64 {
    match wish {
        Wish::From(_) => 0,
        Wish::Told(place) => place.rev,
        Wish::Now | Wish::Unnamed | Wish::Invalid => u64::MAX,
    }
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
