//! A stream of events on an HTTP connection: the deadlines of plain answers don't hold for it, those of a socket do.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

use crate::delivery::send_queue::{Batch, SendQueue};

/// How long the peer's kernel may leave bytes unacknowledged: a peer that vanished is noticed two comments later.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);

/// The stream that an answer's body is; among the extensions of the answer.
#[derive(Debug, Clone)]
pub(super) struct OpenStream(pub(super) Arc<SendQueue>);

impl OpenStream {
    /// Prepares the connection.
    pub(super) fn begin_on(&self, stream: &TcpStream) {
        if let Err(error) = SockRef::from(stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX)) {
            tracing::warn!(%error, "a stream whose peer vanishes will be noticed late");
        }
    }

    /// The peer took bytes: a sign of life, because a stream's client sends none.
    pub(super) fn moved(&self) {
        self.0.liveness().heard();
        self.0.liveness().set_stuck(false);
    }

    /// The peer takes nothing now. An error if it has not for as long as a socket may; `late` is polled once the stream has to
    /// end.
    pub(super) fn wait(&self, cx: &mut Context<'_>, late: impl FnOnce(&mut Context<'_>) -> Poll<()>) -> io::Result<()> {
        let mut batch = Batch::default();
        self.0.liveness().set_stuck(true);
        self.0.watch(&mut batch, cx.waker());
        if batch.abort || batch.close.is_some() && late(cx).is_ready() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the stream was not read"));
        }
        Ok(())
    }
}
