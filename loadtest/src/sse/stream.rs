//! A stream: the request, and a reader that owns no buffer while idle.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::chunks::Framing;
use super::event::{Incoming, Parser};
use crate::ws::{CONNECT_TIMEOUT, ConnectError, Head, dial, poll_fill, read_head};

/// The longest line of a stream, in bytes.
const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// An open stream. Dropping a [`Stream::next`] future loses nothing.
#[derive(Debug)]
pub struct Stream {
    socket: TcpStream,
    /// What came and isn't unwrapped yet.
    raw: BytesMut,
    framing: Framing,
    parser: Parser,
}

impl Stream {
    /// Connects to `address` (from `source`, if given) and asks for `path_and_query`. `headers` are whole lines with their
    /// line ends. With `reset` the socket is closed by RST, so that it leaves no TIME_WAIT behind.
    ///
    /// # Errors
    /// TCP's, or an answer that is no stream.
    pub async fn open(
        address: SocketAddr,
        source: Option<IpAddr>,
        path_and_query: &str,
        headers: &str,
        reset: bool,
    ) -> Result<Self, ConnectError> {
        let attempt = async {
            let mut socket = dial(address, source, reset).await?;
            let request = format!(
                "GET {path_and_query} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n{headers}\r\n"
            );
            socket.write_all(request.as_bytes()).await?;
            let (head, raw) = read_head(&mut socket).await?;
            let framing = framing(&head)?;
            Ok(Self { socket, raw, framing, parser: Parser::default() })
        };
        tokio::time::timeout(CONNECT_TIMEOUT, attempt).await.map_err(|_| ConnectError::TimedOut)?
    }

    /// What the stream says next; `None` when it has ended as a whole.
    ///
    /// # Errors
    /// The socket's, `UnexpectedEof` when the connection ends before the stream, `InvalidData` when what comes is none.
    pub async fn next(&mut self) -> io::Result<Option<Incoming>> {
        loop {
            self.framing.unwrap(&mut self.raw, &mut self.parser.text).map_err(io::Error::other)?;
            if let Some(incoming) = self.parser.next() {
                return Ok(Some(incoming));
            }
            if self.framing == Framing::Over {
                return Ok(None);
            }
            if self.parser.text.len() > LINE_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if self.raw.is_empty() && self.raw.capacity() > 0 {
                self.raw = BytesMut::new();
            }
            let Self { socket, raw, .. } = self;
            let read = poll_fn(|cx| poll_fill(Pin::new(&mut *socket), raw, cx)).await;
            match read {
                Err(end) if end.kind() == io::ErrorKind::UnexpectedEof && self.framing == Framing::UntilClose => {
                    self.framing = Framing::Over;
                }
                read => read?,
            }
        }
    }

    /// Makes closing this socket a reset.
    ///
    /// # Errors
    /// The socket's.
    pub fn reset_on_close(&self) -> io::Result<()> {
        self.socket.set_zero_linger()
    }
}

/// How the body of this answer is framed, if it is a stream.
fn framing(head: &Head) -> Result<Framing, ConnectError> {
    let status = head.status()?;
    if status != 200 {
        return Err(head.refused(status));
    }
    if !head.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")) {
        return Err(ConnectError::BadAnswer);
    }
    match (head.header("transfer-encoding"), head.header("content-length")) {
        (Some(coding), _) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::ChunkSize),
        (Some(_), _) => Err(ConnectError::BadAnswer),
        (None, Some(bytes)) => bytes.parse().map(Framing::Length).map_err(|_| ConnectError::BadAnswer),
        (None, None) => Ok(Framing::UntilClose),
    }
}
