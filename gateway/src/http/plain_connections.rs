//! Plain connections: HTTP connections that are no sockets, or not yet. There is a fixed number of places, and none of them
//! can be held by doing nothing: each thing that a client has to do has a deadline that its own bytes extend, and when the
//! places run short, the connection that makes the least progress has to go, never the one that comes.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::Body;
use hyper::body::{Body as _, Bytes, Frame, Incoming, SizeHint};
use metrics::{Counter, counter, describe_counter};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::open_stream::OpenStream;

/// The places of a listener.
pub(super) const PLAIN_CONNECTIONS_MAX: usize = 2048;
/// The part of the places that one address may have before its own connections are the first to go.
const ADDRESS_SHARE_MAX: usize = PLAIN_CONNECTIONS_MAX / 2;
/// How long a connection is left alone after it was first looked at, whatever it does.
const GRACE: Duration = Duration::from_secs(1);
/// How long a client may take for a request's body, and for its answer, before it has moved any byte.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a stream's client may take for what was written before the stream ended.
const END_WITHIN: Duration = Duration::from_secs(1);
/// How many bytes buy a second more. A client that is slower doesn't need that long, or does it on purpose.
const BYTES_PER_SECOND_MIN: u64 = 8 * 1024;

/// All plain connections of a listener.
pub(super) struct PlainConnections {
    table: Mutex<Table>,
    /// Connections that lost their place to another.
    evicted: Counter,
    /// Connections that found no place.
    refused: Counter,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    connections: HashMap<u64, Arc<Progress>>,
    by_address: HashMap<IpAddr, usize>,
}

/// A place, given up when dropped.
pub(super) struct PlainPlace {
    all: Arc<PlainConnections>,
    number: u64,
    progress: Arc<Progress>,
}

/// What one connection has done so far.
#[derive(Debug)]
pub(super) struct Progress {
    peer: IpAddr,
    /// When its bytes were first asked for. Before that the delay is this node's, not the client's.
    begun: OnceLock<Instant>,
    /// Bytes of both directions.
    moved: AtomicU64,
    turn: AtomicU8,
    /// The body of the request under way came too slowly.
    is_slow: AtomicBool,
    /// The place is needed for another.
    evicted: CancellationToken,
    /// The connection has become a stream of events.
    stream: OnceLock<OpenStream>,
}

/// Whom a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Turn {
    /// The client: for a head, a body, or that the answer is read.
    Client,
    /// This node: a request is being answered.
    Node,
}

impl PlainConnections {
    /// Every place is free.
    pub(super) fn new() -> Self {
        let name = "parley_plain_connections_cut_total";
        describe_counter!(name, "Connections that are no sockets and had no place, or lost it to another");
        let cut = |reason: &'static str| counter!(name, "reason" => reason);
        Self { table: Mutex::default(), evicted: cut("evicted"), refused: cut("refused") }
    }

    /// Takes a place for a connection from `peer`; if there is none left, another connection loses its own. `None` if all of
    /// them wait for this node.
    pub(super) fn take(self: &Arc<Self>, peer: IpAddr) -> Option<PlainPlace> {
        let mut table = self.table.lock();
        if table.connections.len() >= PLAIN_CONNECTIONS_MAX {
            let slowest = table.slowest(Instant::now()).and_then(|number| table.remove(number));
            let Some(progress) = slowest else {
                self.refused.increment(1);
                return None;
            };
            progress.evicted.cancel();
            self.evicted.increment(1);
        }
        let number = table.next;
        table.next += 1;
        let progress = Arc::new(Progress {
            peer,
            begun: OnceLock::new(),
            moved: AtomicU64::new(0),
            turn: AtomicU8::new(Turn::Client as u8),
            is_slow: AtomicBool::new(false),
            evicted: CancellationToken::new(),
            stream: OnceLock::new(),
        });
        table.connections.insert(number, Arc::clone(&progress));
        *table.by_address.entry(peer).or_default() += 1;
        drop(table);
        Some(PlainPlace { all: Arc::clone(self), number, progress })
    }
}

impl Table {
    /// Of those whose client has something to do: the one that moved the fewest bytes a second, among an address' own if that
    /// has more than its share.
    fn slowest(&self, now: Instant) -> Option<u64> {
        let crowded = self.by_address.iter().max_by_key(|(_, count)| **count);
        let crowded = crowded.filter(|(_, count)| **count > ADDRESS_SHARE_MAX).map(|(address, _)| *address);
        let of_age = |age: Duration| {
            self.connections.iter().filter(move |(_, progress)| progress.may_go() && progress.age(now) >= age)
        };
        // When everybody came within the last second, one of them has to go all the same.
        let candidates = of_age(if of_age(GRACE).next().is_some() { GRACE } else { Duration::from_nanos(1) });
        let of_crowded =
            candidates.clone().filter(|(_, progress)| crowded.is_none_or(|address| progress.peer == address));
        let least = |a: &(&u64, &Arc<Progress>), b: &(&u64, &Arc<Progress>)| a.1.rate(now).total_cmp(&b.1.rate(now));
        of_crowded.min_by(least).or_else(|| candidates.min_by(least)).map(|(number, _)| *number)
    }

    fn remove(&mut self, number: u64) -> Option<Arc<Progress>> {
        let progress = self.connections.remove(&number)?;
        if let Some(count) = self.by_address.get_mut(&progress.peer) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&progress.peer);
            }
        }
        Some(progress)
    }
}

impl PlainPlace {
    /// The other end of the connection.
    pub(super) fn peer(&self) -> IpAddr {
        self.progress.peer
    }

    /// The connection becomes a stream of events: it counts as a socket from now on, and leaves its place.
    pub(super) fn leave_for(&self, stream: OpenStream) {
        self.progress.stream.get_or_init(|| stream);
        self.all.table.lock().remove(self.number);
    }

    /// What the connection does is told here.
    pub(super) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Resolves when the place is needed for another.
    pub(super) async fn evicted(&self) {
        self.progress.evicted.cancelled().await;
    }
}

impl Drop for PlainPlace {
    fn drop(&mut self) {
        self.all.table.lock().remove(self.number);
    }
}

impl Progress {
    /// Whether it waits for its client.
    fn may_go(&self) -> bool {
        self.turn.load(Ordering::Relaxed) == Turn::Client as u8
    }

    fn age(&self, now: Instant) -> Duration {
        self.begun.get().map_or(Duration::ZERO, |begun| now.duration_since(*begun))
    }

    #[expect(clippy::cast_precision_loss, reason = "an order is all that is asked for")]
    fn rate(&self, now: Instant) -> f64 {
        self.moved.load(Ordering::Relaxed) as f64 / self.age(now).as_secs_f64()
    }

    fn is_looked_at(&self) {
        self.begun.get_or_init(Instant::now);
    }

    fn moved(&self, bytes: usize) {
        self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The request is here, and this node has to answer it.
    fn is_our_turn(&self) {
        self.turn.store(Turn::Node as u8, Ordering::Relaxed);
    }

    /// The client has to go on: to send the body, to read the answer, to ask again.
    pub(super) fn is_the_clients_turn(&self) {
        self.turn.store(Turn::Client as u8, Ordering::Relaxed);
    }

    /// Whether the last request's body came too slowly.
    pub(super) fn was_slow(&self) -> bool {
        self.is_slow.load(Ordering::Relaxed)
    }
}

/// A deadline that bytes extend: ten seconds, and one more for every 8 KiB.
#[derive(Debug)]
struct Pace {
    begun: Instant,
    patience: Duration,
    moved: u64,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    fn begin(patience: Duration) -> Self {
        Self { begun: Instant::now(), patience, moved: 0, timer: None }
    }

    fn moved(&mut self, bytes: usize) {
        self.moved += bytes as u64;
        self.timer = None;
    }

    /// Ready when the client was too slow. To be polled while it is waited for.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.begun + self.patience + Duration::from_secs(self.moved / BYTES_PER_SECOND_MIN);
        self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline.into()))).as_mut().poll(cx)
    }
}

/// The body of a request on its way: a client that is too slow ends it with [`TooSlow`].
pub(super) struct PacedBody {
    body: Incoming,
    pace: Pace,
    progress: Arc<Progress>,
}

/// A client took too long for its request.
#[derive(Debug, thiserror::Error)]
#[error("the request's body came too slowly")]
pub(super) struct TooSlow;

impl PacedBody {
    /// The body of a request on a connection.
    pub(super) fn of(body: Incoming, progress: Arc<Progress>) -> Body {
        if body.is_end_stream() {
            progress.is_our_turn();
            return Body::empty();
        }
        Body::new(Self { body, pace: Pace::begin(PATIENCE), progress })
    }
}

impl hyper::body::Body for PacedBody {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.pace.moved(frame.data_ref().map_or(0, Bytes::len));
                if this.body.is_end_stream() {
                    this.progress.is_our_turn();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => {
                this.progress.is_our_turn();
                Poll::Ready(None)
            }
            Poll::Pending => {
                ready!(this.pace.poll_over(cx));
                this.progress.is_slow.store(true, Ordering::Relaxed);
                Poll::Ready(Some(Err(TooSlow.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection's bytes: what moves is counted, and a client that doesn't read what it asked for is cut off.
pub(super) struct PacedStream {
    stream: TcpStream,
    progress: Arc<Progress>,
    /// While something written is not taken.
    unread: Option<Pace>,
    /// The connection was seen to be a stream of events.
    is_stream: bool,
}

impl PacedStream {
    /// Counts for `progress` what moves on `stream`.
    pub(super) fn new(stream: TcpStream, progress: Arc<Progress>) -> Self {
        Self { stream, progress, unread: None, is_stream: false }
    }

    /// Judges what became of a write.
    fn judge(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Some(stream) = self.progress.stream.get() {
            if !std::mem::replace(&mut self.is_stream, true) {
                stream.begin_on(&self.stream);
                self.unread = None;
            }
            let unread = &mut self.unread;
            let late = |cx: &mut Context<'_>| unread.get_or_insert_with(|| Pace::begin(END_WITHIN)).poll_over(cx);
            return stream.judge(cx, written, late);
        }
        match written {
            Poll::Ready(Ok(bytes)) => {
                self.progress.moved(bytes);
                if let Some(pace) = &mut self.unread {
                    pace.moved(bytes);
                }
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                ready!(self.unread.get_or_insert_with(|| Pace::begin(PATIENCE)).poll_over(cx));
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the answer was read too slowly")))
            }
        }
    }
}

impl From<PacedStream> for TcpStream {
    fn from(paced: PacedStream) -> Self {
        paced.stream
    }
}

impl AsyncRead for PacedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.progress.is_looked_at();
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        let bytes = buf.filled().len() - before;
        self.progress.moved(bytes);
        Poll::Ready(read)
    }
}

impl AsyncWrite for PacedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Hyper flushes when it has nothing left to write.
        self.unread = None;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
