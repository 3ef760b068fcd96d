//! A bare authenticated connection, a socket or a stream of events: no position, no retry, nothing kept while it is idle.

use std::io;

use shared::UserId;

use crate::speech::{PeerEvent, Speech, kind};
use crate::sse::{self, Stream};
use crate::target::Target;
use crate::ws::{CloseFrame, ConnectError, Incoming, Opcode, Reader, Writer, connect};

/// Why a connection didn't come about.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// No upgrade.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It broke before `auth_success`.
    #[error("broke before auth_success: {0}")]
    Io(#[from] io::Error),
    /// The peer said no.
    #[error("refused: {0}")]
    Refused(String),
    /// It was closed before `auth_success`.
    #[error("closed with {code:?} {reason}", code = .0.code, reason = .0.reason)]
    Closed(CloseFrame),
}

impl OpenError {
    /// A short name to count by.
    pub(super) fn label(&self) -> String {
        match self {
            Self::Connect(error) => error.label(),
            Self::Io(error) => format!("{:?}", error.kind()),
            Self::Refused(why) => why.clone(),
            Self::Closed(close) => format!("close {}", close.code.unwrap_or(0)),
        }
    }
}

/// Connects as number `number`, into `group` where the deployment's groups work like that, closing by reset later, and
/// waits until the user is connected and subscribed.
pub(super) async fn open(
    target: &Target,
    number: usize,
    (user, token): (&UserId, &str),
    group: Option<&str>,
) -> Result<(Reader, Writer), OpenError> {
    let speech = target.speech();
    let dial = target.dial(number, number, token, None);
    let (mut reader, writer) = connect(dial.address, dial.source, &dial.path_and_query, &dial.headers, true).await?;
    let greeting = speech.greeting(user, token, group);
    if let Some((opcode, payload)) = &greeting {
        writer.send(*opcode, payload)?;
    }
    loop {
        match reader.next().await? {
            Incoming::Text(text) => match first(speech, &text) {
                Some(PeerEvent::Ready) => return Ok((reader, writer)),
                Some(PeerEvent::Refused(why)) => return Err(OpenError::Refused(why)),
                Some(PeerEvent::Answer(answer)) => writer.send(Opcode::Text, answer.as_bytes())?,
                Some(PeerEvent::Delivered(_) | PeerEvent::Acked(_)) | None => {}
            },
            Incoming::Pong => {}
            Incoming::Ping(payload) => writer.send(Opcode::Pong, &payload)?,
            Incoming::Close(close) => return Err(OpenError::Closed(close)),
        }
    }
}

/// Opens a stream of events as number `number`, closing by reset later, and waits until the user is connected.
pub(super) async fn open_stream(target: &Target, number: usize, token: &str) -> Result<Stream, OpenError> {
    let dial = target.dial_stream(number, number, token, None);
    let mut stream = Stream::open(dial.address, dial.source, &dial.path_and_query, &dial.headers, true).await?;
    loop {
        match stream.next().await? {
            Some(sse::Incoming::Event(event)) if kind(&event.data) == "auth_success" => return Ok(stream),
            Some(_) => {}
            None => return Err(OpenError::Refused("ended before auth_success".into())),
        }
    }
}

/// Gives every event of a stream to `take`, until it ends.
pub(super) async fn listen_stream(mut stream: Stream, mut take: impl FnMut(&[u8])) {
    while let Ok(Some(incoming)) = stream.next().await {
        if let sse::Incoming::Event(event) = incoming {
            take(&event.data);
        }
    }
}

/// Gives every message to `take` and answers pings, until the connection ends or `take` can't go on.
pub(super) async fn listen(mut reader: Reader, writer: &Writer, mut take: impl FnMut(&[u8]) -> io::Result<()>) {
    loop {
        let alive = match reader.next().await {
            Ok(Incoming::Text(text)) => take(&text).is_ok(),
            Ok(Incoming::Ping(payload)) => writer.send(Opcode::Pong, &payload).is_ok(),
            Ok(Incoming::Pong) => true,
            Ok(Incoming::Close(_)) | Err(_) => false,
        };
        if !alive {
            return;
        }
    }
}

/// Gives what a frame says to `take`, and the signs of life that it asks for to the peer.
pub(super) fn hear(speech: Speech, frame: &[u8], writer: &Writer, mut take: impl FnMut(PeerEvent)) -> io::Result<()> {
    let mut answered = Ok(());
    speech.hear(frame, |heard| match heard {
        PeerEvent::Answer(answer) => answered = writer.send(Opcode::Text, answer.as_bytes()),
        heard => take(heard),
    });
    answered
}

fn first(speech: Speech, frame: &[u8]) -> Option<PeerEvent> {
    let mut first = None;
    speech.hear(frame, |heard| {
        first.get_or_insert(heard);
    });
    first
}
