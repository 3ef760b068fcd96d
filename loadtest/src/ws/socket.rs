//! A client's socket: the upgrade, a reader that owns no buffer while idle, and a writer that never waits.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};

use super::frame::{CloseFrame, Frame, FrameError, Opcode, decode, encode};

/// How long TCP connect and upgrade may take together.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer to an upgrade request, in bytes.
const RESPONSE_BYTES_MAX: usize = 16 * 1024;
/// The most bytes that may wait for a server which doesn't read.
const BACKLOG_BYTES_MAX: usize = 1024 * 1024;
/// The largest assembled message, in bytes.
const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The nonce of RFC 6455 §1.3 and the answer it gives there. It only has to differ from what a cache would answer.
const NONCE: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const NONCE_ACCEPTED: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; 64 * 1024]);
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// TCP failed: refused, reset, unreachable, or cut off inside the answer.
    #[error("tcp: {0}")]
    Io(#[from] io::Error),
    /// The server answered with another status than 101.
    #[error("refused with status {status}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The `Retry-After` header.
        retry_after: Option<Duration>,
    },
    /// The answer is no WebSocket upgrade.
    #[error("not a WebSocket answer")]
    BadAnswer,
    /// No answer in ten seconds.
    #[error("no answer in time")]
    TimedOut,
}

impl ConnectError {
    /// A short name to count by.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::Refused { status, .. } => format!("status {status}"),
            Self::Io(error) => format!("{:?}", error.kind()),
            Self::BadAnswer => "bad answer".into(),
            Self::TimedOut => "timed out".into(),
        }
    }
}

/// An arriving item.
#[derive(Debug)]
pub enum Incoming {
    /// A whole message (binary ones too: the protocol has none, so the parser above complains).
    Text(Bytes),
    /// A ping; answer it with [`Writer::send`].
    Ping(Bytes),
    /// A pong.
    Pong,
    /// The server closes.
    Close(CloseFrame),
}

/// Connects to `address` (from `source`, if given), asks for `path_and_query` and returns the two halves.
/// `headers` are whole lines with their line ends. With `reset` the socket is closed by RST, so that it leaves no
/// TIME_WAIT behind.
pub async fn connect(
    address: SocketAddr,
    source: Option<IpAddr>,
    path_and_query: &str,
    headers: &str,
    reset: bool,
) -> Result<(Reader, Writer), ConnectError> {
    let attempt = async {
        let mut stream = dial(address, source, reset).await?;
        let request = format!(
            "GET {path_and_query} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {NONCE}\r\n{headers}\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let (head, pending) = read_head(&mut stream).await?;
        let deflates = check_answer(&head)?;
        let (read, write) = stream.into_split();
        Ok((
            Reader { half: read, pending, fragments: None, deflates },
            Writer { half: write, backlog: Mutex::default() },
        ))
    };
    tokio::time::timeout(CONNECT_TIMEOUT, attempt).await.map_err(|_| ConnectError::TimedOut)?
}

/// Opens a TCP connection to `address`, from `source` if given, that is closed by RST if `reset` says so.
pub(crate) async fn dial(address: SocketAddr, source: Option<IpAddr>, reset: bool) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = source {
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    if reset {
        stream.set_zero_linger()?;
    }
    Ok(stream)
}

/// Reads the head of an HTTP answer, and returns what came behind it too.
pub(crate) async fn read_head(stream: &mut TcpStream) -> Result<(Head, BytesMut), ConnectError> {
    let mut buffer = BytesMut::with_capacity(512);
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if buffer.len() > RESPONSE_BYTES_MAX {
            return Err(ConnectError::BadAnswer);
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    };
    let head = Head(String::from_utf8_lossy(&buffer.split_to(end)).into_owned());
    Ok((head, if buffer.is_empty() { BytesMut::new() } else { buffer }))
}

/// The head of an HTTP answer.
pub(crate) struct Head(String);

impl Head {
    /// The status.
    pub(crate) fn status(&self) -> Result<u16, ConnectError> {
        self.0.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or(ConnectError::BadAnswer)
    }

    /// The value of the header with this name, in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let line = self.0.lines().find_map(|line| line.split_once(':').filter(|(n, _)| n.eq_ignore_ascii_case(name)));
        line.map(|(_, value)| value.trim())
    }

    /// The error for this status.
    pub(crate) fn refused(&self, status: u16) -> ConnectError {
        let retry_after = self.header("retry-after").and_then(|value| value.parse().ok()).map(Duration::from_secs);
        ConnectError::Refused { status, retry_after }
    }
}

/// Whether the server took the offer of permessage-deflate.
fn check_answer(head: &Head) -> Result<bool, ConnectError> {
    let status = head.status()?;
    if status != 101 {
        return Err(head.refused(status));
    }
    if head.header("sec-websocket-accept") != Some(NONCE_ACCEPTED) {
        return Err(ConnectError::BadAnswer);
    }
    let extension = head.header("sec-websocket-extensions");
    Ok(extension.is_some_and(|extension| extension.starts_with("permessage-deflate")))
}

/// Reads into the thread's buffer and from there into `pending`, so that an idle socket has no buffer.
pub(crate) fn poll_fill(
    half: Pin<&mut impl AsyncRead>,
    pending: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(scratch);
        ready!(half.poll_read(cx, &mut buffer))?;
        if buffer.filled().is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        pending.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(()))
    })
}

/// The reading half. Dropping a [`Reader::next`] future loses nothing.
#[derive(Debug)]
pub struct Reader {
    half: OwnedReadHalf,
    pending: BytesMut,
    fragments: Option<BytesMut>,
    deflates: bool,
}

impl Reader {
    /// The next message or control frame.
    ///
    /// # Errors
    /// The socket's, `UnexpectedEof` when the server is gone without a close frame, `InvalidData` with a
    /// [`FrameError`] when what it sends is no WebSocket stream.
    pub async fn next(&mut self) -> io::Result<Incoming> {
        loop {
            while let Some(frame) = decode(&mut self.pending, self.deflates).map_err(invalid)? {
                if let Some(incoming) = self.assemble(frame).map_err(invalid)? {
                    return Ok(incoming);
                }
            }
            if self.pending.is_empty() && self.pending.capacity() > 0 {
                self.pending = BytesMut::new();
            }
            let Self { half, pending, .. } = self;
            poll_fn(|cx| poll_fill(Pin::new(&mut *half), pending, cx)).await?;
        }
    }

    fn assemble(&mut self, frame: Frame) -> Result<Option<Incoming>, FrameError> {
        match (frame.opcode, frame.fin) {
            (Opcode::Ping, _) => Ok(Some(Incoming::Ping(frame.payload))),
            (Opcode::Pong, _) => Ok(Some(Incoming::Pong)),
            (Opcode::Close, _) => Ok(Some(Incoming::Close(CloseFrame::parse(&frame.payload)))),
            (Opcode::Text | Opcode::Binary, _) if self.fragments.is_some() => Err(FrameError::Fragment),
            (Opcode::Text | Opcode::Binary, true) => Ok(Some(Incoming::Text(frame.payload))),
            (Opcode::Text | Opcode::Binary, false) => {
                self.fragments = Some(BytesMut::from(frame.payload));
                Ok(None)
            }
            (Opcode::Continuation, fin) => {
                let mut message = self.fragments.take().ok_or(FrameError::Fragment)?;
                if message.len() + frame.payload.len() > MESSAGE_BYTES_MAX {
                    return Err(FrameError::TooLarge((message.len() + frame.payload.len()) as u64));
                }
                message.extend_from_slice(&frame.payload);
                if fin {
                    return Ok(Some(Incoming::Text(message.freeze())));
                }
                self.fragments = Some(message);
                Ok(None)
            }
        }
    }
}

fn invalid(error: FrameError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The writing half. What the socket doesn't take at once waits, up to a bound, for the next [`Writer::flush`].
#[derive(Debug)]
pub struct Writer {
    half: OwnedWriteHalf,
    backlog: Mutex<Vec<u8>>,
}

impl Writer {
    /// Sends a text message.
    ///
    /// # Errors
    /// The socket's, and `StorageFull` when a megabyte already waits for a server that doesn't read.
    pub fn send_text(&self, text: &str) -> io::Result<()> {
        self.send(Opcode::Text, text.as_bytes())
    }

    /// Sends one frame; errors as [`Writer::send_text`].
    pub fn send(&self, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
        let mut backlog = self.backlog.lock().unwrap_or_else(PoisonError::into_inner);
        if backlog.len() > BACKLOG_BYTES_MAX {
            return Err(io::ErrorKind::StorageFull.into());
        }
        encode(opcode, payload, rand::random(), &mut backlog);
        self.write(&mut backlog)
    }

    /// Writes what waits; returns how many bytes still do.
    pub fn flush(&self) -> io::Result<usize> {
        let mut backlog = self.backlog.lock().unwrap_or_else(PoisonError::into_inner);
        self.write(&mut backlog)?;
        Ok(backlog.len())
    }

    /// Makes closing this socket a reset, so that it leaves no TIME_WAIT behind.
    pub fn reset_on_close(&self) -> io::Result<()> {
        self.half.as_ref().set_zero_linger()
    }

    fn write(&self, backlog: &mut Vec<u8>) -> io::Result<()> {
        while !backlog.is_empty() {
            match self.half.try_write(backlog) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) if written == backlog.len() => *backlog = Vec::new(),
                Ok(written) => drop(backlog.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
