//! Writes queued frames to a stream, many in one system call, and keeps the place where the stream stopped.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

use super::DELIVERY_SECONDS;
use crate::clock::{now_us, us_at};

/// Buffers that one vectored write may carry.
const SLICES_MAX: usize = 64;

/// Frames that are to be written, the first of them perhaps in part.
#[derive(Debug, Default)]
pub(super) struct PendingWrite {
    frames: VecDeque<Bytes>,
    first_is_begun: bool,
    /// When the oldest message among them was accepted, in microseconds of the process's clock; 0 if there is none. Half as
    /// large as an `Option<Instant>`, and every idle socket has one.
    accepted_us: u64,
}

impl PendingWrite {
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.frames.capacity()
    }

    pub(super) fn push(&mut self, frame: Bytes) {
        self.frames.push_back(frame);
    }

    /// Takes the next frames over; only once the last ones are written.
    pub(super) fn refill(&mut self, frames: VecDeque<Bytes>, accepted_at: Option<Instant>) {
        debug_assert!(self.frames.is_empty(), "frames would be lost");
        self.frames = frames;
        self.accepted_us = accepted_at.map_or(0, |at| us_at(at).max(1));
    }

    /// Drops every frame of which the peer has seen nothing.
    pub(super) fn drop_unbegun(&mut self) {
        self.frames.truncate(usize::from(self.first_is_begun));
    }

    /// Writes until all is written (`Ok(true)`) or the peer takes no more for now (`Ok(false)`; the task will be woken).
    /// `progress` is called after each write that took something.
    pub(super) fn write(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut TcpStream,
        mut progress: impl FnMut(),
    ) -> io::Result<bool> {
        loop {
            while self.frames.front().is_some_and(Bytes::is_empty) {
                self.frames.pop_front();
            }
            if self.frames.is_empty() {
                if self.accepted_us > 0 {
                    DELIVERY_SECONDS.record(Duration::from_micros(now_us().saturating_sub(self.accepted_us)));
                }
                // A socket has nothing allocated while it has nothing to write.
                *self = Self::default();
                return Ok(true);
            }
            match self.poll_once(cx, stream) {
                Poll::Pending => return Ok(false),
                Poll::Ready(result) => {
                    self.advance(result?);
                    progress();
                }
            }
        }
    }

    fn poll_once(&self, cx: &mut Context<'_>, stream: &mut TcpStream) -> Poll<io::Result<usize>> {
        let stream = Pin::new(stream);
        let mut frames = self.frames.iter();
        let written = match (frames.next(), frames.len()) {
            (None, _) => return Poll::Ready(Ok(0)),
            (Some(only), 0) => ready!(stream.poll_write(cx, only))?,
            (Some(_), _) => {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let mut used = 0;
                for (slice, frame) in slices.iter_mut().zip(&self.frames) {
                    *slice = IoSlice::new(frame);
                    used += 1;
                }
                ready!(stream.poll_write_vectored(cx, slices.get(..used).unwrap_or_default()))?
            }
        };
        Poll::Ready(if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(written) })
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(first) = self.frames.front_mut() {
            if written < first.len() {
                first.advance(written);
                self.first_is_begun |= written > 0;
                return;
            }
            written -= first.len();
            self.frames.pop_front();
            self.first_is_begun = false;
        }
    }
}
