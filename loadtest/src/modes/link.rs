//! A bare authenticated connection: no position, no retry, nothing kept while it is idle.

use std::io;

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
    /// It was closed before `auth_success`.
    #[error("closed with {code:?} {reason}", code = .0.code, reason = .0.reason)]
    Closed(CloseFrame),
}

impl OpenError {
    /// A short name to count by.
    pub(super) fn label(&self) -> String {
        match self {
            Self::Connect(ConnectError::Refused { status, .. }) => format!("status {status}"),
            Self::Connect(ConnectError::Io(error)) | Self::Io(error) => format!("{:?}", error.kind()),
            Self::Connect(ConnectError::BadAnswer) => "bad answer".into(),
            Self::Connect(ConnectError::TimedOut) => "timed out".into(),
            Self::Closed(close) => format!("close {}", close.code.unwrap_or(0)),
        }
    }
}

/// Connects as number `number`, closing by reset later, and waits for `auth_success`.
pub(super) async fn open(target: &Target, number: usize, token: &str) -> Result<(Reader, Writer), OpenError> {
    let dial = target.dial(number, number, token, None);
    let (mut reader, writer) = connect(dial.address, dial.source, &dial.path_and_query, &dial.headers, true).await?;
    loop {
        match reader.next().await? {
            Incoming::Text(text) if kind(&text) == "auth_success" => return Ok((reader, writer)),
            Incoming::Text(_) | Incoming::Pong => {}
            Incoming::Ping(payload) => writer.send(Opcode::Pong, &payload)?,
            Incoming::Close(close) => return Err(OpenError::Closed(close)),
        }
    }
}

/// The `type` of a canonical frame, read without parsing: it stands at the beginning, behind `seq` at most.
pub(super) fn kind(frame: &[u8]) -> &str {
    field(frame, "\"type\":\"")
}

/// The number of the measured message in a frame, from content that [`content`] made.
pub(super) fn message_number(frame: &[u8]) -> Option<u64> {
    field(frame, "\"content\":\"m").split(' ').next()?.parse().ok()
}

/// Content of `bytes` bytes that carries the message's number.
pub(super) fn content(number: u64, bytes: usize) -> String {
    let mut content = format!("m{number} ");
    content.extend(std::iter::repeat_n('.', bytes.saturating_sub(content.len())));
    content
}

/// What stands between `before` and the next quotation mark; empty if there is no such thing.
fn field<'a>(frame: &'a [u8], before: &str) -> &'a str {
    let text = std::str::from_utf8(frame).unwrap_or_default();
    text.split_once(before).and_then(|(_, rest)| rest.split('"').next()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_and_number_are_read_without_parsing() {
        let frame =
            format!(r#"{{"seq":3,"type":"message.new","payload":{{"message":{{"content":"{}"}}}}}}"#, content(42, 9));
        assert_eq!((kind(frame.as_bytes()), message_number(frame.as_bytes())), ("message.new", Some(42)));
        assert_eq!((kind(b"{}"), message_number(b"{}")), ("", None));
        assert_eq!(content(7, 20).len(), 20);
    }
}
