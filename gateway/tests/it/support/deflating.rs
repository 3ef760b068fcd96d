//! A client that compresses (permessage-deflate, RFC 7692): it tells which frames came compressed, and how many bytes they had.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client_frame::{self, inflated_in_pieces};

/// How long anything expected may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A frame of the server.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Received {
    /// A text.
    Text(Text),
    /// A close frame.
    Closed(u16),
    /// The end of the stream.
    Vanished,
}

/// A text of the server.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Text {
    /// The frame had RSV1.
    pub(crate) compressed: bool,
    /// The payload as it came.
    pub(crate) payload: Vec<u8>,
    /// Its JSON.
    pub(crate) json: Value,
}

/// A connected client.
pub(crate) struct Deflating {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// The server's answer to the offer.
    pub(crate) extension: Option<String>,
}

impl Deflating {
    /// Connects with this offer.
    pub(crate) async fn open(to: SocketAddr, path: &str, offer: &str) -> Self {
        let mut stream = TcpStream::connect(to).await.expect("it accepts");
        stream.set_nodelay(true).expect("a live socket");
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: {offer}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("a live socket");
        let mut client = Self { stream, buffer: Vec::new(), extension: None };
        let end = loop {
            match client.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                Some(end) => break end + 4,
                None => assert!(client.fill().await, "an answer"),
            }
        };
        let head = String::from_utf8(client.buffer.drain(..end).collect()).expect("text");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        let mut answers = lines.filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-extensions"));
        client.extension = answers.next().map(|(_, value)| value.to_owned());
        client
    }

    /// Sends a frame with this first byte, masked.
    pub(crate) async fn send_frame(&mut self, head: u8, payload: &[u8]) {
        self.stream.write_all(&client_frame::client(head, payload)).await.expect("a live socket");
    }

    /// Sends a text as it is.
    pub(crate) async fn send(&mut self, json: &Value) {
        self.send_frame(0x81, json.to_string().as_bytes()).await;
    }

    /// Sends a text compressed.
    pub(crate) async fn send_compressed(&mut self, json: &Value) {
        self.send_frame(0xC1, &deflated(json.to_string().as_bytes())).await;
    }

    /// The next text of this type; those before it are dropped.
    pub(crate) async fn expect(&mut self, kind: &str) -> Text {
        loop {
            match self.next().await {
                Received::Text(text) if text.json["type"] == kind => return text,
                Received::Text(_) => {}
                other => panic!("{other:?} instead of {kind}"),
            }
        }
    }

    /// The code of the close frame; texts before it are dropped.
    pub(crate) async fn expect_close(&mut self) -> u16 {
        loop {
            match self.next().await {
                Received::Text(_) => {}
                Received::Closed(code) => return code,
                Received::Vanished => panic!("no close frame"),
            }
        }
    }

    /// The next text or the end; pings and pongs are dropped.
    pub(crate) async fn next(&mut self) -> Received {
        loop {
            while let Some((head, payload)) = self.take_frame() {
                match head {
                    0x81 | 0xC1 => {
                        let compressed = head == 0xC1;
                        let text = if compressed {
                            inflated_in_pieces(&payload).expect("a deflate stream")
                        } else {
                            payload.clone()
                        };
                        let json = serde_json::from_slice(&text).expect("the server sends JSON");
                        return Received::Text(Text { compressed, payload, json });
                    }
                    0x88 => {
                        let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                        return Received::Closed(code);
                    }
                    0x89 | 0x8A => {}
                    other => panic!("a frame that begins with {other:#x}"),
                }
            }
            if !self.fill().await {
                return Received::Vanished;
            }
        }
    }

    fn take_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let (header, len) = match *self.buffer.get(1)? {
            126 => (4, usize::from(u16::from_be_bytes(*self.buffer.get(2..)?.first_chunk()?))),
            127 => (10, usize::try_from(u64::from_be_bytes(*self.buffer.get(2..)?.first_chunk()?)).expect("in memory")),
            short => (2, usize::from(short)),
        };
        if self.buffer.len() < header + len {
            return None;
        }
        let frame: Vec<u8> = self.buffer.drain(..header + len).collect();
        Some((frame[0], frame[header..].to_vec()))
    }

    async fn fill(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut bytes)).await.expect("something in time");
        let read = read.unwrap_or(0);
        self.buffer.extend_from_slice(&bytes[..read]);
        read > 0
    }
}

/// The payload of a compressed message.
pub(crate) fn deflated(message: &[u8]) -> Vec<u8> {
    client_frame::deflated(message, 15)
}
