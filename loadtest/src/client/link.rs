//! A device's connection: a WebSocket, or a stream of server-sent events. It answers what a server asks for as a sign of life,
//! and decides nothing.

use std::io;
use std::time::Duration;

use bytes::Bytes;

use crate::sse::{self, Stream};
use crate::target::Dial;
use crate::ws::{ConnectError, Incoming, Opcode, Reader, Writer, connect};

/// After this long without any frame a `ping` goes out on a socket; after twice as long the connection counts as dead.
pub(super) const SOCKET_SILENCE: Duration = Duration::from_secs(5);
/// A stream says something each 15 s. After this long without it the connection counts as dead.
const STREAM_SILENCE_MAX: Duration = Duration::from_secs(40);

/// How a device is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// By a WebSocket.
    #[default]
    Socket,
    /// By a stream of server-sent events; what it sends goes over REST.
    Stream,
}

/// An open connection.
pub(super) enum Link {
    Socket { reader: Reader, writer: Writer },
    Stream(Stream),
}

/// What a server says on a connection.
pub(super) enum Heard {
    /// A frame, with its `id` on a stream.
    Frame { text: Bytes, id: Option<String> },
    /// It lives.
    Alive,
    /// Once the stream has ended, the client is to stay away this long.
    StayAway(Duration),
    /// The connection ends as it should, with this close code if there is one.
    Closed(Option<u16>),
}

impl Link {
    /// Connects.
    pub(super) async fn open(dial: &Dial, transport: Transport) -> Result<Self, ConnectError> {
        let Dial { address, source, path_and_query, headers } = dial;
        match transport {
            Transport::Socket => {
                let (reader, writer) = connect(*address, *source, path_and_query, headers, false).await?;
                Ok(Self::Socket { reader, writer })
            }
            Transport::Stream => {
                Ok(Self::Stream(Stream::open(*address, *source, path_and_query, headers, false).await?))
            }
        }
    }

    /// What the server says next. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> io::Result<Heard> {
        match self {
            Self::Socket { reader, writer } => match reader.next().await? {
                Incoming::Text(text) => Ok(Heard::Frame { text, id: None }),
                Incoming::Ping(payload) => writer.send(Opcode::Pong, &payload).map(|()| Heard::Alive),
                Incoming::Pong => Ok(Heard::Alive),
                Incoming::Close(close) => {
                    let _ = writer.send(Opcode::Close, &close.code.unwrap_or(1000).to_be_bytes());
                    Ok(Heard::Closed(close.code))
                }
            },
            Self::Stream(stream) => Ok(match stream.next().await? {
                Some(sse::Incoming::Event(event)) => Heard::Frame { text: event.data, id: event.id },
                Some(sse::Incoming::Retry(wait)) => Heard::StayAway(wait),
                Some(sse::Incoming::Comment) => Heard::Alive,
                None => Heard::Closed(None),
            }),
        }
    }

    /// The writing half of a socket; a stream has none.
    pub(super) fn writer(&self) -> Option<&Writer> {
        match self {
            Self::Socket { writer, .. } => Some(writer),
            Self::Stream(_) => None,
        }
    }

    /// Writes what waits.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.writer().map_or(Ok(0), Writer::flush).map(drop)
    }

    /// Asks for a sign of life; a stream's client can't.
    pub(super) fn ask(&self) -> io::Result<()> {
        self.writer().map_or(Ok(()), |writer| writer.send_text(r#"{"type":"ping"}"#))
    }

    /// Says that the client leaves; on a stream its end says that.
    pub(super) fn leave(&self) {
        if let Some(writer) = self.writer() {
            let _ = writer.send(Opcode::Close, &1000_u16.to_be_bytes());
        }
    }

    /// After how long a silence the connection counts as dead.
    pub(super) fn silence_max(&self) -> Duration {
        match self {
            Self::Socket { .. } => SOCKET_SILENCE * 2,
            Self::Stream(_) => STREAM_SILENCE_MAX,
        }
    }

    /// Makes closing a reset.
    pub(super) fn reset_on_close(&self) -> io::Result<()> {
        match self {
            Self::Socket { writer, .. } => writer.reset_on_close(),
            Self::Stream(stream) => stream.reset_on_close(),
        }
    }
}
