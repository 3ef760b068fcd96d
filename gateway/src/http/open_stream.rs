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

    /// Judges what became of a write. To take bytes is a sign of life, because a stream's client sends none. To take none is an
    /// error after as long as a socket may; once the stream has to end, when `late` is ready.
    pub(super) fn judge(
        &self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
        late: impl FnOnce(&mut Context<'_>) -> Poll<()>,
    ) -> Poll<io::Result<usize>> {
        let Self(queue) = self;
        match written {
            Poll::Ready(Ok(bytes)) => {
                queue.liveness().heard();
                queue.liveness().set_stuck(false);
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                let mut batch = Batch::default();
                queue.liveness().set_stuck(true);
                queue.watch(&mut batch, cx.waker());
                if batch.abort || batch.close.is_some() && late(cx).is_ready() {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the stream was not read")));
                }
                Poll::Pending
            }
        }
    }
}
