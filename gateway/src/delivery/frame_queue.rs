//! Frames that wait for one socket, within a budget of bytes. It has no lock and closes nothing: it says when it is over.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::switches;

/// Framed bytes that one write may carry, shared between sockets.
pub type FramedBytes = Bytes;

/// The waiting frames of one socket, in order. Takes no memory while it is empty.
#[derive(Debug)]
pub struct FrameQueue {
    frames: VecDeque<FramedBytes>,
    /// The places of the ephemeral ones, which are dropped first, ascending.
    ephemeral: Vec<u32>,
    bytes: u32,
    bytes_max: u32,
}

/// The budget is used up; the frames that waited are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverBudget;

impl FrameQueue {
    /// An empty queue of at most `bytes_max` bytes.
    #[must_use]
    pub const fn new(bytes_max: u32) -> Self {
        Self { frames: VecDeque::new(), ephemeral: Vec::new(), bytes: 0, bytes_max }
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Bytes that wait.
    #[must_use]
    pub const fn bytes(&self) -> u32 {
        self.bytes
    }

    /// Whether no more than half of the budget is in use with these bytes.
    #[must_use]
    pub fn fits_half(&self, framed: &FramedBytes) -> bool {
        self.bytes.saturating_add(len_of(framed)) <= self.bytes_max / 2
    }

    /// Whether no more than half of the budget is in use with so many bytes more.
    #[must_use]
    pub fn fits_half_with(&self, bytes: usize) -> bool {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.bytes.saturating_add(bytes) <= self.bytes_max / 2
    }

    /// Adds a frame. To make room it drops the ephemeral ones; without room it drops everything.
    pub fn push(&mut self, framed: FramedBytes, is_ephemeral: bool) -> Result<(), OverBudget> {
        let is_bounded = !switches::off("slow-consumer");
        let bytes = len_of(&framed);
        if self.bytes.saturating_add(bytes) > self.bytes_max {
            self.drop_ephemeral();
        }
        // A single event that is larger than the budget has to pass, or nobody could ever get beyond it.
        let is_over = self.bytes.saturating_add(bytes) > self.bytes_max && !self.frames.is_empty();
        if is_bounded && is_over {
            self.take();
            return Err(OverBudget);
        }
        self.bytes += bytes;
        if is_ephemeral {
            self.ephemeral.push(place_of(self.frames.len()));
        }
        self.frames.push_back(framed);
        Ok(())
    }

    /// Takes all frames, and gives back the memory.
    pub fn take(&mut self) -> VecDeque<FramedBytes> {
        self.ephemeral = Vec::new();
        self.bytes = 0;
        std::mem::take(&mut self.frames)
    }

    fn drop_ephemeral(&mut self) {
        let ephemeral = std::mem::take(&mut self.ephemeral);
        let mut places = 0..;
        self.frames.retain(|_| places.next().is_some_and(|place| ephemeral.binary_search(&place_of(place)).is_err()));
        self.bytes = self.frames.iter().map(len_of).sum();
    }
}

/// The weight of a frame: its bytes, and its place in the queue, so that many tiny frames weigh something too.
fn len_of(framed: &FramedBytes) -> u32 {
    u32::try_from(framed.len() + size_of::<FramedBytes>()).unwrap_or(u32::MAX)
}

fn place_of(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: FramedBytes = FramedBytes::from_static(b"x");

    #[test]
    fn ephemeral_frames_make_room_for_others_and_then_it_is_over() {
        let room_for_two = 2 * len_of(&FRAME);
        let mut queue = FrameQueue::new(room_for_two);
        assert!(queue.fits_half(&FRAME));
        assert_eq!(queue.push(FRAME, true), Ok(()));
        assert!(!queue.fits_half(&FRAME));
        assert_eq!(queue.push(FRAME, false), Ok(()));
        assert_eq!(queue.push(FRAME, false), Ok(()), "in the place of the ephemeral one");
        assert_eq!(queue.bytes(), room_for_two);
        assert_eq!(queue.push(FRAME, false), Err(OverBudget));
        assert_eq!((queue.bytes(), queue.is_empty()), (0, true));
    }

    #[test]
    fn one_frame_larger_than_the_budget_passes() {
        let mut queue = FrameQueue::new(1);
        assert_eq!(queue.push(FRAME, false), Ok(()));
        assert_eq!(queue.take(), [FRAME]);
    }
}
