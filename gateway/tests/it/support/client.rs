//! A `chat.v1` client that keeps the frames that it got, in order.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use fastwebsockets::{FragmentCollector, Frame, OpCode, Payload, handshake};
use http_body_util::Empty;
use hyper::Request;
use hyper::body::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// How long anything expected may take: longer than Sentinels whose first vote was split.
const PATIENCE: Duration = Duration::from_secs(20);

/// The type under which the WebSocket's own pong is among the frames.
pub(crate) const PONG: &str = "the WebSocket's pong";

/// What came over the socket.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Incoming {
    Frame(Value),
    Closed(u16, String),
    Vanished,
}

/// A connected client.
pub(crate) struct Client {
    socket: FragmentCollector<TokioIo<Upgraded>>,
    /// Frames that were skipped while another was waited for.
    kept: VecDeque<Value>,
    /// The subprotocol that the server chose.
    pub(crate) protocol: Option<String>,
}

/// The answer to an upgrade that was refused.
#[derive(Debug)]
pub(crate) struct UpgradeRefusal(pub(crate) String);

impl Client {
    /// Connects as `user` and takes `auth_success` and `status.bulk`.
    pub(crate) async fn join(to: SocketAddr, user: &str) -> Self {
        Self::join_with(to, &super::node::token(user)).await.0
    }

    /// The same with this token; also gives the payload of `auth_success`.
    pub(crate) async fn join_with(to: SocketAddr, token: &str) -> (Self, Value) {
        let mut client = Self::open(to, &format!("/chat/ws?token={token}"), &[]).await.expect("an upgrade");
        let success = client.expect("auth_success").await;
        client.expect("status.bulk").await;
        (client, success["payload"].clone())
    }

    /// Opens a socket without waiting for anything.
    pub(crate) async fn open(to: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Result<Self, UpgradeRefusal> {
        let stream = TcpStream::connect(to).await.map_err(|error| UpgradeRefusal(error.to_string()))?;
        stream.set_nodelay(true).expect("a live socket");
        let mut request = Request::builder()
            .method("GET")
            .uri(path)
            .header("host", to.to_string())
            .header("upgrade", "websocket")
            .header("connection", "upgrade")
            .header("sec-websocket-key", handshake::generate_key())
            .header("sec-websocket-version", "13");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::<Bytes>::new()).expect("a request");
        let (socket, answer) = handshake::client(&TokioExecutor::new(), request, stream)
            .await
            .map_err(|error| UpgradeRefusal(error.to_string()))?;
        let protocol = answer.headers().get("sec-websocket-protocol");
        let protocol = protocol.map(|value| value.to_str().expect("visible text").to_owned());
        Ok(Self { socket: FragmentCollector::new(socket), kept: VecDeque::new(), protocol })
    }

    /// Sends a command.
    pub(crate) async fn send(&mut self, kind: &str, payload: Value) {
        self.send_text(&json!({ "type": kind, "payload": payload }).to_string()).await;
    }

    /// Sends a command with a `ref`.
    pub(crate) async fn send_ref(&mut self, kind: &str, payload: Value, reference: Value) {
        self.send_text(&json!({ "type": kind, "payload": payload, "ref": reference }).to_string()).await;
    }

    /// Sends any text.
    pub(crate) async fn send_text(&mut self, text: &str) {
        let frame = Frame::text(Payload::Borrowed(text.as_bytes()));
        self.socket.write_frame(frame).await.expect("a live socket");
    }

    /// Sends a ping of the WebSocket's own.
    pub(crate) async fn send_socket_ping(&mut self) {
        let ping = Frame::new(true, OpCode::Ping, None, Payload::Borrowed(b""));
        self.socket.write_frame(ping).await.expect("a live socket");
    }

    /// The next thing that comes; panics if nothing does.
    pub(crate) async fn next(&mut self) -> Incoming {
        self.try_next().await.expect("something comes")
    }

    /// The next thing that comes, if something does in time.
    pub(crate) async fn try_next(&mut self) -> Option<Incoming> {
        if let Some(kept) = self.kept.pop_front() {
            return Some(Incoming::Frame(kept));
        }
        tokio::time::timeout(PATIENCE, self.read()).await.ok()
    }

    /// The next frame of this type; others that come before it are kept for later.
    pub(crate) async fn expect(&mut self, kind: &str) -> Value {
        if let Some(place) = self.kept.iter().position(|frame| frame["type"] == kind) {
            return self.kept.remove(place).expect("it is there");
        }
        let wait = async {
            loop {
                match self.read().await {
                    Incoming::Frame(frame) if frame["type"] == kind => return frame,
                    Incoming::Frame(frame) => self.kept.push_back(frame),
                    other => panic!("{other:?} instead of {kind}; kept: {:?}", self.kept),
                }
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(frame) => frame,
            Err(_) => panic!("no {kind} in time; kept: {:?}", self.kept),
        }
    }

    /// What came while something else was waited for.
    pub(crate) fn kept(&self) -> &VecDeque<Value> {
        &self.kept
    }

    /// The close frame, after whatever comes before it.
    pub(crate) async fn expect_close(&mut self) -> u16 {
        let wait = async {
            loop {
                match self.read().await {
                    Incoming::Frame(frame) => self.kept.push_back(frame),
                    Incoming::Closed(code, _) => return code,
                    Incoming::Vanished => panic!("no close frame; kept: {:?}", self.kept),
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("a close in time")
    }

    /// Nothing but what a ping answers: everything that was on its way has come.
    pub(crate) async fn settle(&mut self) -> Vec<Value> {
        self.send_ref("ping", json!({}), json!("settle")).await;
        loop {
            match tokio::time::timeout(PATIENCE, self.read()).await.expect("a pong") {
                Incoming::Frame(frame) if frame["ref"] == "settle" => return self.kept.drain(..).collect(),
                Incoming::Frame(frame) => self.kept.push_back(frame),
                other => panic!("{other:?} instead of a pong"),
            }
        }
    }

    async fn read(&mut self) -> Incoming {
        let Ok(frame) = self.socket.read_frame().await else { return Incoming::Vanished };
        match frame.opcode {
            OpCode::Text => Incoming::Frame(serde_json::from_slice(&frame.payload).expect("the server sends JSON")),
            OpCode::Close => {
                let code = frame.payload.get(..2).map_or(1005, |code| u16::from_be_bytes([code[0], code[1]]));
                let reason = frame.payload.get(2..).unwrap_or_default();
                Incoming::Closed(code, String::from_utf8_lossy(reason).into_owned())
            }
            OpCode::Pong => Incoming::Frame(json!({ "type": PONG })),
            other => panic!("an unexpected {other:?}"),
        }
    }
}

/// The types of frames, in order.
pub(crate) fn types(frames: &[Value]) -> Vec<String> {
    frames.iter().map(|frame| frame["type"].as_str().unwrap_or("?").to_owned()).collect()
}
