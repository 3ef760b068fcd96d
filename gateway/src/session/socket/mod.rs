//! The driver of one WebSocket: moves bytes between its TCP stream, the decoder and the queue, and closes it in order.
//! It offers [`Socket`], which the one task that owns it polls, and [`SocketEnd`], the one table of how sockets end.
//! It never parses a message, never waits for a command, and never holds a buffer for an idle socket.

mod closing;
mod read_buffer;
#[cfg(test)]
mod tests;
mod write;

use std::io;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use metrics::{Histogram, histogram};
use shared::CloseCode;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

use crate::delivery::send_queue::{Batch, SendQueue};
use crate::ws::decoder::{Decoder, Fault, Item};
use crate::ws::frame;
use closing::Closing;
use read_buffer::with_read_buffer;
use write::PendingWrite;

/// Reads of one poll, so that one busy peer doesn't keep a thread from the others.
const READS_PER_POLL: usize = 4;
/// Messages and control frames of one read before other tasks have their turn, for the same reason.
const ITEMS_PER_READ: usize = 256;
/// A message counts as one of these, and as one more for each so many bytes: a compressed one may have arrived in few bytes.
const BYTES_PER_ITEM: usize = 1024;

/// Bytes of unwritten pongs from which on earlier ones are dropped.
const PONG_BYTES_MAX: usize = 2 * 1024;

/// From a message's acceptance to the write that handed it to the kernel. Looked up once: the sockets of a process share it.
static DELIVERY_SECONDS: LazyLock<Histogram> = LazyLock::new(|| histogram!("parley_delivery_seconds"));

/// One upgraded socket.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    decoder: Decoder,
    queue: Arc<SendQueue>,
    /// Bytes that were read and not decoded yet, because the caller wants no message now.
    backlog: BytesMut,
    unwritten: PendingWrite,
    /// The answers to pings since the last write, framed.
    pongs: Vec<u8>,
    /// Set once no message will be handed out any more.
    closing: Option<Box<Closing>>,
}

/// A message from the peer; its bytes may be changed in place.
#[derive(Debug)]
pub enum Incoming<'a> {
    /// Text, valid UTF-8.
    Text(&'a mut [u8]),
    /// Binary.
    Binary(&'a mut [u8]),
    /// A frame without a message: a ping, a pong that was not asked for, a fragment. It is told so that it can be counted.
    Frame,
}

impl Incoming<'_> {
    /// How many bytes its message has.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Text(bytes) | Self::Binary(bytes) => bytes.len(),
            Self::Frame => 0,
        }
    }
}

/// Whether the next message may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// At once.
    Continue,
    /// Not in this poll; later ones say with `reading`.
    Pause,
}

/// How a socket ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketEnd {
    /// The peer closed it, with this code if any.
    Peer(Option<u16>),
    /// The peer's end of stream came without a close frame.
    Vanished,
    /// The peer broke RFC 6455 and got a close frame.
    Fault(Fault),
    /// We closed it; `told` says whether the close frame was handed to the kernel.
    Closed {
        /// The code that was given to [`SendQueue::close`], or of an overflow.
        code: CloseCode,
        /// Whether the peer can know it.
        told: bool,
    },
    /// [`SendQueue::abort`].
    Aborted,
    /// The connection failed.
    Io(io::ErrorKind),
}

impl SocketEnd {
    /// Who ended it and why, as logs and the metric `parley_closes_total` say it: `by` is `client` or `server`; the reason is
    /// that of the close frame where there was one of ours.
    #[must_use]
    pub fn by_and_reason(self) -> (&'static str, &'static str) {
        match self {
            Self::Peer(_) => ("client", "closed"),
            Self::Vanished => ("client", "vanished"),
            Self::Fault(_) => ("server", "websocket_fault"),
            Self::Closed { code, .. } => ("server", code.reason()),
            Self::Aborted => ("server", "write_timeout"),
            Self::Io(_) => ("client", "io_error"),
        }
    }
}

/// The outcome of a read.
enum ReadProgress {
    /// All were decoded.
    All,
    /// No more in this poll; these bytes are left.
    Stopped { rest_bytes: usize },
    /// The socket is closing; further input is ignored.
    Closing,
}

/// The outcome of a write.
struct WriteProgress {
    /// Everything is with the kernel.
    all: bool,
    /// The queue wants the socket closed.
    close: Option<CloseCode>,
}

impl Socket {
    /// Drives `stream`, of which `leftover` was already read, for `queue`. A message may have `message_bytes_max` bytes, and
    /// may be compressed if the queue's events may.
    /// The queue makes batches, so the stream should have `TCP_NODELAY`.
    #[must_use]
    pub fn new(stream: TcpStream, leftover: Bytes, queue: Arc<SendQueue>, message_bytes_max: u32) -> Self {
        Self {
            stream,
            decoder: Decoder::new(message_bytes_max, queue.wire().deflate_from.is_some()),
            queue,
            // Copied, because `leftover` may be a view of the HTTP parser's whole buffer, even when it is empty.
            backlog: BytesMut::from(&*leftover),
            unwritten: PendingWrite::default(),
            pongs: Vec::new(),
            closing: None,
        }
    }

    /// Whether the socket is closing: no message will come, and no frame that is queued now will be written.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Reads (if `reading`), hands messages to `on_message`, and writes what the queue has; ready when the socket has ended.
    ///
    /// The task is woken for bytes to read only if the last poll was `reading` and no message was answered with
    /// [`Flow::Pause`]: after a pause, poll again when the next message may come. A closing socket discards what the peer
    /// still sends, whatever `reading` says. An `on_message` that closes the queue should pause, too. Not to be polled
    /// again once it is ready.
    pub fn poll_drive(
        &mut self,
        cx: &mut Context<'_>,
        reading: bool,
        on_message: &mut dyn FnMut(Incoming<'_>) -> Flow,
    ) -> Poll<SocketEnd> {
        if reading
            && self.closing.is_none()
            && let Err(ended) = self.read_messages(cx, on_message)
        {
            return Poll::Ready(ended);
        }
        if self.closing.is_none() {
            match self.flush(cx) {
                Ok(WriteProgress { close: None, .. }) => {}
                Ok(WriteProgress { close: Some(code), .. }) => {
                    self.begin_closing(SocketEnd::Closed { code, told: false })
                }
                Err(ended) => return Poll::Ready(ended),
            }
        }
        self.poll_closing(cx)
    }

    /// Reads and delivers until nothing is there, the caller pauses, or the poll has done enough.
    fn read_messages(
        &mut self,
        cx: &mut Context<'_>,
        on_message: &mut dyn FnMut(Incoming<'_>) -> Flow,
    ) -> Result<(), SocketEnd> {
        if !self.backlog.is_empty() {
            let mut backlog = std::mem::take(&mut self.backlog);
            match self.deliver(cx, &mut backlog, on_message) {
                ReadProgress::All => {}
                ReadProgress::Closing | ReadProgress::Stopped { rest_bytes: 0 } => return Ok(()),
                ReadProgress::Stopped { rest_bytes } => {
                    backlog.advance(backlog.len() - rest_bytes);
                    self.backlog = backlog;
                    return Ok(());
                }
            }
        }
        with_read_buffer(|buffer| {
            for _ in 0..READS_PER_POLL {
                let bytes = match poll_read(&mut self.stream, cx, buffer) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(Ok([])) => return Err(SocketEnd::Vanished),
                    Poll::Ready(Ok(bytes)) => bytes,
                    Poll::Ready(Err(error)) => return Err(SocketEnd::Io(error.kind())),
                };
                self.queue.liveness().heard();
                match self.deliver(cx, bytes, on_message) {
                    ReadProgress::All => {}
                    ReadProgress::Closing => return Ok(()),
                    ReadProgress::Stopped { rest_bytes } => {
                        self.backlog = BytesMut::from(bytes.get(bytes.len() - rest_bytes..).unwrap_or_default());
                        return Ok(());
                    }
                }
            }
            cx.waker().wake_by_ref();
            Ok(())
        })
    }

    /// Hands out what is in `input`; asks for another poll when that is more than one poll may do.
    fn deliver(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut [u8],
        on_message: &mut dyn FnMut(Incoming<'_>) -> Flow,
    ) -> ReadProgress {
        let mut rest = input;
        let mut items = 0;
        while items < ITEMS_PER_READ {
            items += 1;
            let flow = match self.decoder.next(&mut rest) {
                Ok(None) => return ReadProgress::All,
                Ok(Some(Item::Text(mut payload))) => {
                    items += payload.len() / BYTES_PER_ITEM;
                    on_message(Incoming::Text(&mut payload))
                }
                Ok(Some(Item::Binary(mut payload))) => {
                    items += payload.len() / BYTES_PER_ITEM;
                    on_message(Incoming::Binary(&mut payload))
                }
                Ok(Some(Item::Ping(payload))) => {
                    self.answer_ping(&payload);
                    on_message(Incoming::Frame)
                }
                Ok(Some(Item::Pong)) if self.decoder.is_answer() => Flow::Continue,
                Ok(Some(Item::Pong)) => on_message(Incoming::Frame),
                Ok(Some(Item::Fragment)) => on_message(Incoming::Frame),
                Ok(Some(Item::Close(code))) => {
                    self.begin_closing(SocketEnd::Peer(code));
                    return ReadProgress::Closing;
                }
                Err(fault) => {
                    self.begin_closing(SocketEnd::Fault(fault));
                    return ReadProgress::Closing;
                }
            };
            match flow {
                Flow::Continue => {}
                Flow::Pause => return ReadProgress::Stopped { rest_bytes: rest.len() },
            }
        }
        cx.waker().wake_by_ref();
        ReadProgress::Stopped { rest_bytes: rest.len() }
    }

    /// A peer that pings faster than it reads gets answers to its latest pings only (RFC 6455 §5.5.3).
    fn answer_ping(&mut self, payload: &[u8]) {
        if self.pongs.len() > PONG_BYTES_MAX {
            self.pongs.clear();
        }
        frame::put_pong(&mut self.pongs, payload);
    }

    /// Writes what is left from before, then all that the queue has. Leaves the queue with this task's waker.
    fn flush(&mut self, cx: &mut Context<'_>) -> Result<WriteProgress, SocketEnd> {
        let mut batch = Batch::default();
        let mut all = self.write(cx)?;
        if all {
            self.queue.take(&mut batch, cx.waker());
            if batch.ping {
                batch.frames.push_back(frame::ping());
                self.decoder.expect_pong();
            }
            if !self.pongs.is_empty() {
                // First, because the answers to a message come after it, and pings may stand inside of a message.
                batch.frames.push_front(Bytes::from(std::mem::take(&mut self.pongs)));
            }
        } else {
            self.queue.watch(&mut batch, cx.waker());
        }
        if batch.abort {
            self.reset_on_drop();
            return Err(SocketEnd::Aborted);
        }
        if !batch.frames.is_empty() {
            self.unwritten.refill(batch.frames, batch.accepted_at);
            all = self.write(cx)?;
        }
        Ok(WriteProgress { all, close: batch.close })
    }

    /// Writes what was taken from the queue; whether that was all.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, SocketEnd> {
        let progress = || self.queue.liveness().set_stuck(false);
        let all = self.unwritten.write(cx, &mut self.stream, progress).map_err(|error| SocketEnd::Io(error.kind()))?;
        if !all {
            self.queue.liveness().set_stuck(true);
        }
        Ok(all)
    }

    /// Makes the kernel forget what the peer would not read, when the stream is dropped.
    fn reset_on_drop(&self) {
        // An error means that the connection is gone already.
        let _ = self.stream.set_zero_linger();
    }
}

/// Reads once into `buffer`; no bytes mean the end of the stream.
fn poll_read<'b>(stream: &mut TcpStream, cx: &mut Context<'_>, buffer: &'b mut [u8]) -> Poll<io::Result<&'b mut [u8]>> {
    let mut read = ReadBuf::new(buffer);
    ready!(Pin::new(stream).poll_read(cx, &mut read))?;
    let bytes = read.filled().len();
    Poll::Ready(Ok(buffer.get_mut(..bytes).unwrap_or_default()))
}
