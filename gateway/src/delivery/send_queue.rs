//! The bounded queue between the node and one socket: its frames, its close, and the waker of the socket's task.
//!
//! Pushing an event wakes the socket's task, and only that task takes frames out. The [`Gate`] decides which durable event
//! may pass; an event that may not is dropped here, and never held back for later.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Instant;

use parking_lot::Mutex;
use shared::{CloseCode, Wire};

use crate::delivery::already_seen::AlreadySeen;
pub use crate::delivery::frame_queue::FramedBytes;
use crate::delivery::frame_queue::{FrameQueue, OverBudget};
use crate::delivery::gate::{Gate, Verdict};
use crate::delivery::liveness::Liveness;
use crate::switches;

/// The queue between the node and one socket.
#[derive(Debug)]
pub struct SendQueue {
    /// In which dialect the bytes are that this queue takes.
    wire: Wire,
    state: Mutex<State>,
    liveness: Liveness,
}

#[derive(Debug)]
struct State {
    frames: FrameQueue,
    ping: bool,
    gate: Gate,
    /// Events that must not come as they are. Few sockets have any.
    seen: Option<Box<AlreadySeen>>,
    /// When the last event of the log that was queued had reached this node.
    advanced_at: Option<Instant>,
    /// When the oldest live message in the queue was accepted.
    accepted_at: Option<Instant>,
    closing: Option<CloseCode>,
    aborted: bool,
    waker: Option<Waker>,
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
                frames: FrameQueue::new(bytes_max),
                ping: false,
                gate: Gate::CLOSED,
                seen: None,
                advanced_at: None,
                accepted_at: None,
                closing: None,
                aborted: false,
                waker: None,
            }),
            liveness: Liveness::new(),
        }
    }

    /// In which dialect the bytes have to be.
    pub fn wire(&self) -> Wire {
        self.wire
    }

    /// The signs of life of this queue's socket.
    pub fn liveness(&self) -> &Liveness {
        &self.liveness
    }

    /// This connection is about to send a message with this `tempId`, and wants no echo of it.
    pub fn mute(&self, temp_id: &str) {
        self.state.lock().seen.get_or_insert_default().mute(temp_id);
    }

    /// The message was not sent.
    pub fn unmute(&self, temp_id: &str) {
        let mut state = self.state.lock();
        if let Some(seen) = &mut state.seen {
            seen.take_muted(temp_id);
        }
        state.forget_seen();
    }

    /// Queues an answer to this connection alone.
    pub fn push_reply(&self, framed: FramedBytes) -> PushOutcome {
        self.state.lock().enqueue(framed, false)
    }

    /// Queues an answer that tells the position, with nothing in between.
    pub fn push_reply_at(&self, answer: impl FnOnce(u64) -> FramedBytes) -> PushOutcome {
        let mut state = self.state.lock();
        match state.gate.position() {
            None => PushOutcome::Joining,
            Some((position, _)) => state.enqueue(answer(position), false),
        }
    }

    /// Queues an event without `seq`; dropped when half of the budget is in use, so that it never displaces a durable one.
    pub fn push_ephemeral(&self, framed: FramedBytes) -> PushOutcome {
        let mut state = self.state.lock();
        if !state.gate.is_open() || !state.frames.fits_half(&framed) {
            return PushOutcome::Dropped;
        }
        state.enqueue(framed, true)
    }

    /// Queues a companion whose event came before. It isn't dropped for want of room: no later event might tell it again.
    pub fn push_companion(&self, framed: &FramedBytes) -> PushOutcome {
        let mut state = self.state.lock();
        if state.gate.is_open() { state.enqueue(framed.clone(), false) } else { PushOutcome::Joining }
    }

    /// Queues a message's event without `seq`, because the backbone is away; its event in the log will be replaced.
    /// Left to the log when [`DIRECT_MAX`](crate::delivery::already_seen::DIRECT_MAX) such messages are outstanding, or when
    /// an event of the log came after `tried_at`, the moment when its publication was begun: that may have been this
    /// message, published all the same. A connection that sent the message under `temp_id` may want no echo of it.
    pub fn push_direct(
        &self,
        message: u64,
        temp_id: Option<&str>,
        framed: &FramedBytes,
        tried_at: Instant,
    ) -> PushOutcome {
        let is_replaced_later = !switches::off("direct-position");
        let mut state = self.state.lock();
        let may_be_here = state.advanced_at.is_some_and(|at| at >= tried_at);
        if !state.gate.is_open() || may_be_here {
            return PushOutcome::Dropped;
        }
        let seen = state.seen.get_or_insert_default();
        if seen.is_full() {
            return PushOutcome::Dropped;
        }
        if seen.has_direct(message) {
            return PushOutcome::Old;
        }
        if is_replaced_later {
            seen.note_direct(message);
        }
        if temp_id.is_some_and(|temp_id| seen.take_muted(temp_id)) {
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
        source: Source,
        instead: impl FnOnce(Option<&mut AlreadySeen>) -> Option<FramedBytes>,
    ) -> PushOutcome {
        let waits_for_room = source == Source::FromLog && !switches::off("room");
        let mut state = self.state.lock();
        state.gate.note(seq);
        match without_switched_off(state.gate.judge(seq)) {
            Verdict::Joining => return PushOutcome::Joining,
            Verdict::Old => return PushOutcome::Old,
            // The socket asks for all that it lacks when it has room.
            Verdict::Gap if self.is_starved() => return PushOutcome::Full,
            Verdict::Gap => return PushOutcome::Gap,
            Verdict::Next if waits_for_room && !state.frames.is_empty() && !state.frames.fits_half(framed) => {
                self.liveness.starved.store(true, Ordering::Relaxed);
                return PushOutcome::Full;
            }
            Verdict::Next => state.gate.pass(seq),
        }
        state.advanced_at = state.advanced_at.max(Some(at));
        let frames = instead(state.seen.as_deref_mut());
        state.forget_seen();
        let pushed = state.enqueue(frames.unwrap_or_else(|| framed.clone()), false);
        if let (PushOutcome::Queued, Source::Live(accepted_at), None) = (pushed, source, state.accepted_at) {
            state.accepted_at = accepted_at;
        }
        pushed
    }

    /// Queues an event of a large conversation. A connection that sent the message under `temp_id` may want no echo of it.
    pub fn push_shared(
        &self,
        framed: &FramedBytes,
        temp_id: Option<&str>,
        accepted_at: Option<Instant>,
    ) -> PushOutcome {
        let mut state = self.state.lock();
        if let (Some(seen), Some(temp_id)) = (&mut state.seen, temp_id)
            && seen.take_muted(temp_id)
        {
            state.forget_seen();
            return PushOutcome::Silent;
        }
        let pushed = state.enqueue(framed.clone(), false);
        if pushed == PushOutcome::Queued && state.accepted_at.is_none() {
            state.accepted_at = accepted_at;
        }
        pushed
    }

    /// Whether so many bytes leave half of the budget free.
    pub fn has_room_for(&self, bytes: usize) -> bool {
        self.state.lock().frames.fits_half_with(bytes)
    }

    /// Notes the durable event `seq`, which this queue takes only from the log.
    pub fn leave_to_log(&self, seq: u64) -> PushOutcome {
        let mut state = self.state.lock();
        state.gate.note(seq);
        match state.gate.judge(seq) {
            Verdict::Joining => PushOutcome::Joining,
            Verdict::Old => PushOutcome::Old,
            Verdict::Next | Verdict::Gap if self.is_starved() => PushOutcome::Full,
            Verdict::Next | Verdict::Gap => PushOutcome::Gap,
        }
    }

    /// Opens the gate at `position`, queueing `first` (what tells the client that position) before any event.
    /// Returns whether events after it were pushed meanwhile, which the log now has to bring.
    pub fn open_at(&self, position: u64, first: FramedBytes) -> (PushOutcome, bool) {
        let mut state = self.state.lock();
        let missed = state.gate.open_at(position);
        (state.enqueue(first, false), missed)
    }

    /// Moves the gate to a position of another epoch, queueing `notice` (`position` or `resync`).
    pub fn reposition(&self, position: u64, notice: FramedBytes) -> PushOutcome {
        let mut state = self.state.lock();
        if !state.gate.move_to(position) {
            return PushOutcome::Dropped;
        }
        state.enqueue(notice, false)
    }

    /// The position, once the gate is open, and the highest `seq` that was pushed.
    pub fn position(&self) -> Option<(u64, u64)> {
        self.state.lock().gate.position()
    }

    /// Whether the log has events for which there was no room.
    pub fn is_starved(&self) -> bool {
        self.liveness.starved.load(Ordering::Relaxed)
    }

    /// Whether the log has events for which there was no room, and there is some now. Says so once.
    pub fn wants_more(&self) -> bool {
        self.is_starved() && {
            let state = self.state.lock();
            state.frames.is_empty() && self.liveness.starved.swap(false, Ordering::Relaxed)
        }
    }

    /// Asks the socket's task for a ping.
    pub fn request_ping(&self) {
        let mut state = self.state.lock();
        state.ping = true;
        state.wake();
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
        self.state.lock().frames.bytes()
    }

    /// Takes everything that waits into `batch`; with nothing there, registers `waker` and returns false.
    /// Called by the socket's task alone.
    pub fn take(&self, batch: &mut Batch, waker: &Waker) -> bool {
        let mut state = self.state.lock();
        state.register(waker);
        let any = !state.frames.is_empty()
            || state.ping
            || (state.closing.is_some() && batch.close.is_none())
            || (state.aborted && !batch.abort);
        let frames = state.frames.take();
        if batch.frames.is_empty() {
            batch.frames = frames;
        } else {
            batch.frames.extend(frames);
        }
        batch.ping |= std::mem::take(&mut state.ping);
        batch.close = state.closing;
        batch.abort = state.aborted;
        batch.accepted_at = state.accepted_at.take();
        any
    }

    /// Like [`SendQueue::take`] while the last batch is still being written: learns of a close or abort, but leaves what waits.
    pub fn watch(&self, batch: &mut Batch, waker: &Waker) {
        let mut state = self.state.lock();
        state.register(waker);
        batch.close = state.closing;
        batch.abort = state.aborted;
    }
}

/// The gate's verdict, unless a test has switched off what refuses the event.
fn without_switched_off(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Old if switches::off("once") => Verdict::Next,
        Verdict::Gap if switches::off("gate") => Verdict::Next,
        Verdict::Next | Verdict::Old | Verdict::Gap | Verdict::Joining => verdict,
    }
}

impl State {
    fn enqueue(&mut self, framed: FramedBytes, is_ephemeral: bool) -> PushOutcome {
        if self.closing.is_some() {
            return PushOutcome::Closing;
        }
        if framed.is_empty() {
            return PushOutcome::Silent;
        }
        let pushed = match self.frames.push(framed, is_ephemeral) {
            Ok(()) => PushOutcome::Queued,
            Err(OverBudget) => {
                self.accepted_at = None;
                self.closing = Some(CloseCode::SlowConsumer);
                PushOutcome::Overflow
            }
        };
        self.wake();
        pushed
    }

    /// Gives back the memory when nothing is outstanding any more.
    fn forget_seen(&mut self) {
        if self.seen.as_ref().is_some_and(|seen| seen.is_empty()) {
            self.seen = None;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_socket_s_queue_is_small() {
        assert!(size_of::<SendQueue>() <= 176, "{} bytes", size_of::<SendQueue>());
    }

    #[test]
    fn a_message_that_the_log_may_have_brought_is_not_handed_over_directly() {
        let queue = SendQueue::new(1024, Wire::CHAT);
        let frame = FramedBytes::from_static(b"x");
        queue.open_at(0, frame.clone());
        let tried_at = Instant::now();
        // Redis ran the script and the push came, but its reply was lost: the publication counts as failed.
        assert_eq!(queue.push_durable(1, &frame, Instant::now(), Source::Live(None), |_| None), PushOutcome::Queued);
        assert_eq!(queue.push_direct(7, None, &frame, tried_at), PushOutcome::Dropped);
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert_eq!(queue.push_direct(8, None, &frame, Instant::now()), PushOutcome::Queued);
    }
}
