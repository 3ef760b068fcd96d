//! The end of a socket: the queued bytes, the close frame, and then a moment for the peer to read them.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use shared::CloseCode;
use tokio::io::AsyncWrite;
use tokio::time::{Instant, Sleep, sleep};

use super::read_buffer::with_read_buffer;
use super::{READS_PER_POLL, Socket, SocketEnd, WriteProgress, poll_read};
use crate::ws::frame;

/// Time to write what is queued and the close frame; and again, after that, for the peer to close its side.
const STEP: Duration = Duration::from_secs(1);

/// A socket that hands out no more messages.
#[derive(Debug)]
pub(super) struct Closing {
    ended: SocketEnd,
    step: Step,
    deadline: Pin<Box<Sleep>>,
    /// The peer's end of stream was read.
    peer_is_done: bool,
}

#[derive(Debug)]
enum Step {
    /// The queued frames are written; then this close frame follows.
    Draining(Bytes),
    /// The close frame is written; nothing may follow it.
    Telling,
    /// The write side is shut. What the peer still sends is read and discarded: to close with unread bytes would make
    /// the kernel reset the connection, and a reset destroys what the peer has not read yet.
    Lingering,
}

impl Socket {
    /// From now on no message is handed out and nothing more is queued.
    pub(super) fn begin_closing(&mut self, ended: SocketEnd) {
        let (frame, code) = match ended {
            SocketEnd::Peer(code) => (frame::close_echo(code), CloseCode::Normal),
            SocketEnd::Fault(fault) => (frame::close(fault.close_code()), fault.close_code()),
            SocketEnd::Closed { code, .. } => (frame::close(code), code),
            // These end a socket without a close frame.
            SocketEnd::Vanished | SocketEnd::Aborted | SocketEnd::Io(_) => return,
        };
        if code == CloseCode::SlowConsumer {
            self.unwritten.drop_unbegun();
        }
        self.queue.close(code);
        self.backlog = BytesMut::new();
        self.closing = Some(Box::new(Closing {
            ended,
            step: Step::Draining(frame),
            deadline: Box::pin(sleep(STEP)),
            peer_is_done: false,
        }));
    }

    /// Goes on closing, if the socket is; ready when that is over, one way or another.
    pub(super) fn poll_closing(&mut self, cx: &mut Context<'_>) -> Poll<SocketEnd> {
        let Some(mut closing) = self.closing.take() else { return Poll::Pending };
        let over = self.close_step(cx, &mut closing) || closing.is_late(cx);
        if !over {
            self.closing = Some(closing);
            return Poll::Pending;
        }
        match closing.step {
            // The peer doesn't read; the kernel would keep for minutes what it refuses.
            Step::Draining(_) | Step::Telling => self.reset_on_drop(),
            Step::Lingering => {}
        }
        Poll::Ready(closing.ended)
    }

    /// Whether both sides are done, or the connection has failed.
    fn close_step(&mut self, cx: &mut Context<'_>, closing: &mut Closing) -> bool {
        if !closing.peer_is_done {
            match self.discard(cx) {
                Ok(peer_is_done) => closing.peer_is_done = peer_is_done,
                Err(_) => return true,
            }
        }
        if let Step::Draining(frame) = &closing.step {
            match self.flush(cx) {
                Ok(WriteProgress { all: true, .. }) => {
                    self.unwritten.push(frame.clone());
                    closing.step = Step::Telling;
                }
                Ok(WriteProgress { all: false, .. }) => {}
                Err(_) => return true,
            }
        }
        if let Step::Telling = closing.step {
            match self.write(cx) {
                Ok(true) => {
                    self.shut_down(cx);
                    closing.told();
                }
                Ok(false) => {}
                Err(_) => return true,
            }
        }
        closing.peer_is_done && matches!(closing.step, Step::Lingering)
    }

    /// Shuts the write side; for TCP that is done at once, and fails only when the connection is gone.
    fn shut_down(&mut self, cx: &mut Context<'_>) {
        let _: Poll<std::io::Result<()>> = Pin::new(&mut self.stream).poll_shutdown(cx);
    }

    /// Reads and forgets; whether the peer's end of stream was reached.
    fn discard(&mut self, cx: &mut Context<'_>) -> std::io::Result<bool> {
        with_read_buffer(|buffer| {
            for _ in 0..READS_PER_POLL {
                match poll_read(&mut self.stream, cx, buffer) {
                    Poll::Pending => return Ok(false),
                    Poll::Ready(Ok([])) => return Ok(true),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => return Err(error),
                }
            }
            cx.waker().wake_by_ref();
            Ok(false)
        })
    }
}

impl Closing {
    fn told(&mut self) {
        if let SocketEnd::Closed { told, .. } = &mut self.ended {
            *told = true;
        }
        self.step = Step::Lingering;
        self.deadline.as_mut().reset(Instant::now() + STEP);
    }

    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        self.deadline.as_mut().poll(cx).is_ready()
    }
}
