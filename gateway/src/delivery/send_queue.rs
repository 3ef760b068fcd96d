//! The bounded queue of one socket, and the gate that keeps its durable events gapless.
//!
//! Whoever has an event pushes framed bytes here and wakes the socket's task; only that task takes them out. Nothing is
//! held back for later: an event that doesn't fit the position is dropped, because the log has it and a reader of the
//! log will bring it in order.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::Waker;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use shared::{CloseCode, Wire};

use crate::clock::coarse_s;
use crate::switches;

/// Framed bytes that one write may carry, shared between sockets.
pub type FramedBytes = Bytes;

/// Messages handed over without `seq` that may be outstanding on one socket (NOLOSS.md, B10).
pub const DIRECT_MAX: usize = 1000;

/// Sends of one connection whose echo is still to come and is not wanted; the oldest is forgotten first.
const MUTED_MAX: usize = 256;

/// The queue between the node and one socket.
#[derive(Debug)]
pub struct SendQueue {
    /// In which dialect the bytes are that this queue takes.
    wire: Wire,
    state: Mutex<State>,
    /// Coarse seconds of the last inbound byte.
    heard_s: AtomicU32,
    /// Coarse seconds since when a write has made no progress, 0 when none is stuck.
    stuck_since_s: AtomicU32,
    /// No further command is wanted from this socket.
    quiet: AtomicBool,
    /// The log has events for which there was no room. Written under the lock.
    starved: AtomicBool,
}

#[derive(Debug)]
struct State {
    queue: VecDeque<FramedBytes>,
    /// The places in the queue of what is dropped first, ascending.
    ephemeral: Vec<u32>,
    bytes: u32,
    bytes_max: u32,
    ping: bool,
    gate: Gate,
    /// Events that must not come as they are. Few sockets have any.
    had: Option<Box<AlreadySeen>>,
    /// When the last event of the log that was queued had reached this node.
    advanced_at: Option<Instant>,
    /// When the oldest live message in the queue was accepted.
    accepted_at: Option<Instant>,
    closing: Option<CloseCode>,
    aborted: bool,
    waker: Option<Waker>,
}

/// Events that a socket must not get as they are when they come from the log.
#[derive(Debug, Default)]
pub struct AlreadySeen {
    /// Messages that were handed over without `seq`, because the backbone was away.
    direct: Vec<u64>,
    /// The `tempId`s of messages that this connection sent and wants no echo of.
    muted: VecDeque<Box<str>>,
}

impl AlreadySeen {
    /// Whether this message was handed over; it isn't outstanding any more.
    pub fn take_direct(&mut self, message: u64) -> bool {
        let place = self.direct.iter().position(|known| *known == message);
        place.map(|place| self.direct.swap_remove(place)).is_some()
    }

    /// Whether this connection sent the message with this `tempId` and wants no echo; it isn't outstanding any more.
    pub fn take_muted(&mut self, temp_id: &str) -> bool {
        let place = self.muted.iter().position(|known| **known == *temp_id);
        place.and_then(|place| self.muted.remove(place)).is_some()
    }
}

/// Which durable events may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    /// The position isn't known yet; `seen` is the highest `seq` that was pushed meanwhile.
    Joining { seen: u64 },
    /// The next event is `position + 1`; `seen` is the highest `seq` that was pushed.
    At { position: u64, seen: u64 },
}

/// Where a durable event comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Read from the log: it can come later as well, so it never makes a consumer slow, however much there is to catch up on.
    FromLog,
    /// Published just now; if it brings a message, when that was accepted, so that its way here can be measured.
    Live(Option<Instant>),
}

/// What became of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushOutcome {
    /// It will be written.
    Queued,
    /// The socket had it already.
    Old,
    /// Events before it are missing: the log will bring them, and it.
    Gap,
    /// The socket is still joining: the log will bring it.
    Joining,
    /// Half of the budget is in use: the socket asks for what the log has when that is written.
    Full,
    /// The socket's dialect has no frame for it; it counts as written.
    Silent,
    /// An ephemeral event found no room.
    Dropped,
    /// The queue is over its budget: the socket is being closed with 4105.
    Overflow,
    /// The socket is closing.
    Closing,
}

/// What the socket's task has to write now.
#[derive(Debug, Default)]
pub struct Batch {
    /// Framed bytes, in order.
    pub frames: VecDeque<FramedBytes>,
    /// A ping is due.
    pub ping: bool,
    /// After these bytes, close with this code.
    pub close: Option<CloseCode>,
    /// Drop the socket at once.
    pub abort: bool,
    /// When the oldest live message among the frames was accepted.
    pub accepted_at: Option<Instant>,
}

impl SendQueue {
    /// An empty queue of at most `bytes_max` bytes; allocates nothing. The gate is closed until [`SendQueue::open_at`].
    #[must_use]
    pub fn new(bytes_max: u32, wire: Wire) -> Self {
        Self {
            wire,
            state: Mutex::new(State {
                queue: VecDeque::new(),
                ephemeral: Vec::new(),
                bytes: 0,
                bytes_max,
                ping: false,
                gate: Gate::Joining { seen: 0 },
                had: None,
                advanced_at: None,
                accepted_at: None,
                closing: None,
                aborted: false,
                waker: None,
            }),
            heard_s: AtomicU32::new(coarse_s()),
            stuck_since_s: AtomicU32::new(0),
            quiet: AtomicBool::new(false),
            starved: AtomicBool::new(false),
        }
    }

    /// In which dialect the bytes have to be.
    pub fn wire(&self) -> Wire {
        self.wire
    }

    /// This connection is about to send a message with this `tempId`, and wants no echo of it.
    pub fn mute(&self, temp_id: &str) {
        let mut state = self.state.lock();
        let muted = &mut state.had.get_or_insert_default().muted;
        if muted.len() >= MUTED_MAX {
            muted.pop_front();
        }
        muted.push_back(temp_id.into());
    }

    /// The message was not sent.
    pub fn unmute(&self, temp_id: &str) {
        let mut state = self.state.lock();
        if let Some(had) = &mut state.had {
            had.take_muted(temp_id);
        }
        state.forget_had();
    }

    /// Queues an answer to this connection alone.
    pub fn push_reply(&self, framed: FramedBytes) -> PushOutcome {
        self.push(framed, false)
    }

    /// Queues an answer that tells the position, with nothing in between.
    pub fn push_reply_at(&self, answer: impl FnOnce(u64) -> FramedBytes) -> PushOutcome {
        let mut state = self.state.lock();
        match state.gate {
            Gate::Joining { .. } => PushOutcome::Joining,
            Gate::At { position, .. } => state.enqueue(answer(position), false),
        }
    }

    /// Queues an event without `seq`; dropped when half of the budget is in use, so that it never displaces a durable one.
    pub fn push_ephemeral(&self, framed: FramedBytes) -> PushOutcome {
        let mut state = self.state.lock();
        if matches!(state.gate, Gate::Joining { .. }) {
            return PushOutcome::Dropped;
        }
        if state.bytes.saturating_add(len_of(&framed)) > state.bytes_max / 2 {
            return PushOutcome::Dropped;
        }
        state.enqueue(framed, true)
    }

    /// Queues a message's event without `seq`, because the backbone is away; its event in the log will be replaced.
    /// Left to the log when [`DIRECT_MAX`] such messages are outstanding, or when an event of the log came after
    /// `tried_at`, the moment when its publication was begun: that may have been this message, published all the same.
    /// `is_muted` says whether it is a message that this connection wants no echo of.
    pub fn push_direct(
        &self,
        message: u64,
        framed: &FramedBytes,
        tried_at: Instant,
        is_muted: impl FnOnce(&mut AlreadySeen) -> bool,
    ) -> PushOutcome {
        let mut state = self.state.lock();
        let may_be_here = state.advanced_at.is_some_and(|at| at >= tried_at);
        if matches!(state.gate, Gate::Joining { .. }) || may_be_here {
            return PushOutcome::Dropped;
        }
        let had = state.had.get_or_insert_default();
        if had.direct.len() >= DIRECT_MAX {
            return PushOutcome::Dropped;
        }
        if had.direct.contains(&message) {
            return PushOutcome::Old;
        }
        if !switches::off("direct-position") {
            had.direct.push(message);
        }
        if !had.muted.is_empty() && is_muted(had) {
            return PushOutcome::Silent;
        }
        state.enqueue(framed.clone(), false)
    }

    /// Queues the durable event `seq`, which reached this node at the time `at`, if it is the next one. `instead` is told
    /// which messages the socket had already, if any, and gives the frames that take the event's place if it is one of them.
    pub fn push_durable(
        &self,
        seq: u64,
        framed: &FramedBytes,
        at: Instant,
        came: Source,
        instead: impl FnOnce(Option<&mut AlreadySeen>) -> Option<FramedBytes>,
    ) -> PushOutcome {
        let mut state = self.state.lock();
        let from_log = came == Source::FromLog;
        let full = from_log
            && !switches::off("room")
            && !state.queue.is_empty()
            && state.bytes.saturating_add(len_of(framed)) > state.bytes_max / 2;
        match &mut state.gate {
            Gate::Joining { seen } => {
                *seen = seq.max(*seen);
                return PushOutcome::Joining;
            }
            Gate::At { position, seen } => {
                *seen = seq.max(*seen);
                if seq <= *position && !switches::off("once") {
                    return PushOutcome::Old;
                }
                if seq != *position + 1 && !switches::off("gate") && !(switches::off("once") && seq <= *position) {
                    return if self.starved.load(Ordering::Relaxed) { PushOutcome::Full } else { PushOutcome::Gap };
                }
                if full {
                    self.starved.store(true, Ordering::Relaxed);
                    return PushOutcome::Full;
                }
                *position = seq;
            }
        }
        state.advanced_at = state.advanced_at.max(Some(at));
        let frames = instead(state.had.as_deref_mut());
        if frames.is_some() {
            state.forget_had();
        }
        let pushed = state.enqueue(frames.unwrap_or_else(|| framed.clone()), false);
        if let (PushOutcome::Queued, Source::Live(accepted_at), None) = (pushed, came, state.accepted_at) {
            state.accepted_at = accepted_at;
        }
        pushed
    }

    /// Opens the gate at `position`, queueing `first` (what tells the client that position) before any event.
    /// Returns whether events after it were pushed meanwhile, which the log now has to bring.
    pub fn open_at(&self, position: u64, first: FramedBytes) -> (PushOutcome, bool) {
        let mut state = self.state.lock();
        let seen = match state.gate {
            Gate::Joining { seen } | Gate::At { seen, .. } => seen,
        };
        state.gate = Gate::At { position, seen: seen.max(position) };
        (state.enqueue(first, false), seen > position)
    }

    /// Moves the gate to a position of another epoch, queueing `notice` (`position` or `resync`).
    pub fn reposition(&self, position: u64, notice: FramedBytes) -> PushOutcome {
        let mut state = self.state.lock();
        if matches!(state.gate, Gate::Joining { .. }) {
            return PushOutcome::Dropped;
        }
        state.gate = Gate::At { position, seen: position };
        state.enqueue(notice, false)
    }

    /// The position, once the gate is open, and the highest `seq` that was pushed.
    pub fn position(&self) -> Option<(u64, u64)> {
        match self.state.lock().gate {
            Gate::Joining { .. } => None,
            Gate::At { position, seen } => Some((position, seen)),
        }
    }

    /// Whether the log has events for which there was no room.
    pub fn is_starved(&self) -> bool {
        self.starved.load(Ordering::Relaxed)
    }

    /// Whether the log has events for which there was no room, and there is some now. Says so once.
    pub fn wants_more(&self) -> bool {
        self.is_starved() && {
            let state = self.state.lock();
            state.queue.is_empty() && self.starved.swap(false, Ordering::Relaxed)
        }
    }

    /// Asks the socket's task for a ping.
    pub fn request_ping(&self) {
        let mut state = self.state.lock();
        state.ping = true;
        state.wake();
    }

    /// Asks for no further command: what is under way is finished and answered. A close follows.
    pub fn quiesce(&self) {
        self.quiet.store(true, Ordering::Relaxed);
    }

    /// Whether no further command is wanted.
    pub fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::Relaxed)
    }

    /// Closes the socket after what is queued was written. The first code given stays.
    pub fn close(&self, code: CloseCode) {
        let mut state = self.state.lock();
        state.closing.get_or_insert(code);
        state.wake();
    }

    /// Drops the socket at once, with what was not written: for a peer that has not read for too long.
    pub fn abort(&self) {
        let mut state = self.state.lock();
        state.aborted = true;
        state.wake();
    }

    /// Whether a close was asked for.
    pub fn closing(&self) -> Option<CloseCode> {
        self.state.lock().closing
    }

    /// Bytes that wait to be taken.
    pub fn queued_bytes(&self) -> u32 {
        self.state.lock().bytes
    }

    /// Takes everything that waits into `batch`; with nothing there, registers `waker` and returns false.
    /// Called by the socket's task alone.
    pub fn take(&self, batch: &mut Batch, waker: &Waker) -> bool {
        let mut state = self.state.lock();
        state.register(waker);
        let any = !state.queue.is_empty()
            || state.ping
            || (state.closing.is_some() && batch.close.is_none())
            || (state.aborted && !batch.abort);
        let queue = std::mem::take(&mut state.queue);
        if batch.frames.is_empty() {
            batch.frames = queue;
        } else {
            batch.frames.extend(queue);
        }
        state.ephemeral = Vec::new();
        batch.ping |= std::mem::take(&mut state.ping);
        batch.close = state.closing;
        batch.abort = state.aborted;
        batch.accepted_at = state.accepted_at.take();
        state.bytes = 0;
        any
    }

    /// Like [`SendQueue::take`] while the last batch is still being written: learns of a close or abort, but leaves what waits.
    pub fn watch(&self, batch: &mut Batch, waker: &Waker) {
        let mut state = self.state.lock();
        state.register(waker);
        batch.close = state.closing;
        batch.abort = state.aborted;
    }

    /// The peer sent something.
    pub fn heard(&self) {
        self.heard_s.store(coarse_s(), Ordering::Relaxed);
    }

    /// Coarse seconds of the last inbound byte.
    pub fn heard_s(&self) -> u32 {
        self.heard_s.load(Ordering::Relaxed)
    }

    /// The socket's task could not write; `false` when it could again.
    pub fn set_stuck(&self, stuck: bool) {
        if !stuck {
            self.stuck_since_s.store(0, Ordering::Relaxed);
        } else if self.stuck_since_s.load(Ordering::Relaxed) == 0 {
            self.stuck_since_s.store(coarse_s(), Ordering::Relaxed);
        }
    }

    /// Coarse seconds since when a write has made no progress.
    pub fn stuck_since_s(&self) -> Option<u32> {
        match self.stuck_since_s.load(Ordering::Relaxed) {
            0 => None,
            since => Some(since),
        }
    }

    fn push(&self, framed: FramedBytes, ephemeral: bool) -> PushOutcome {
        self.state.lock().enqueue(framed, ephemeral)
    }
}

impl State {
    fn enqueue(&mut self, framed: FramedBytes, ephemeral: bool) -> PushOutcome {
        if self.closing.is_some() {
            return PushOutcome::Closing;
        }
        if framed.is_empty() {
            return PushOutcome::Silent;
        }
        let bytes = len_of(&framed);
        if self.bytes.saturating_add(bytes) > self.bytes_max {
            self.shed_ephemeral();
        }
        // A single event that is larger than the budget has to pass, or nobody could ever get beyond it.
        let is_over = self.bytes.saturating_add(bytes) > self.bytes_max && !self.queue.is_empty();
        if is_over && !switches::off("slow-consumer") {
            self.queue = VecDeque::new();
            self.ephemeral = Vec::new();
            self.bytes = 0;
            self.accepted_at = None;
            self.closing = Some(CloseCode::SlowConsumer);
            self.wake();
            return PushOutcome::Overflow;
        }
        self.bytes += bytes;
        if ephemeral {
            self.ephemeral.push(place_of(self.queue.len()));
        }
        self.queue.push_back(framed);
        self.wake();
        PushOutcome::Queued
    }

    /// Gives back the memory when nothing is outstanding any more.
    fn forget_had(&mut self) {
        if self.had.as_ref().is_some_and(|had| had.direct.is_empty() && had.muted.is_empty()) {
            self.had = None;
        }
    }

    /// Drops queued ephemeral events to make room for durable ones.
    fn shed_ephemeral(&mut self) {
        let ephemeral = std::mem::take(&mut self.ephemeral);
        let mut places = 0..;
        self.queue.retain(|_| places.next().is_some_and(|place| ephemeral.binary_search(&place_of(place)).is_err()));
        self.bytes = self.queue.iter().map(len_of).sum();
    }

    fn register(&mut self, waker: &Waker) {
        if !self.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// What an item weighs: its bytes, and its place in the queue, so that many tiny frames weigh something too.
fn len_of(framed: &FramedBytes) -> u32 {
    u32::try_from(framed.len() + size_of::<FramedBytes>()).unwrap_or(u32::MAX)
}

fn place_of(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_the_log_may_have_brought_is_not_handed_over_directly() {
        let queue = SendQueue::new(1024, Wire::CHAT);
        let frame = FramedBytes::from_static(b"x");
        queue.open_at(0, frame.clone());
        let tried_at = Instant::now();
        // Redis ran the script and the push came, but its reply was lost: the publication counts as failed.
        assert_eq!(queue.push_durable(1, &frame, Instant::now(), Source::Live(None), |_| None), PushOutcome::Queued);
        assert_eq!(queue.push_direct(7, &frame, tried_at, |_| false), PushOutcome::Dropped);
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert_eq!(queue.push_direct(8, &frame, Instant::now(), |_| false), PushOutcome::Queued);
    }
}
