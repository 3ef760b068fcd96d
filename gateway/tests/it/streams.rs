//! Server-sent events: the same log, limits and endings as a socket's, through the public path and the proxies.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderMap;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use crate::support::client::Client;
use crate::support::haproxy::Haproxy;
use crate::support::http::{bearer, get, post};
use crate::support::nginx::Nginx;
use crate::support::node::{API_KEY, Node, in_seconds, token, token_with};
use crate::support::two_nodes::{TwoNodes, flood, flooded, say};

const PATIENCE: Duration = Duration::from_secs(30);

/// The lines between two empty ones.
#[derive(Debug, Default, Clone, PartialEq)]
struct Block {
    event: Option<String>,
    id: Option<String>,
    retry: Option<u64>,
    data: Value,
}

/// A reader that keeps what `EventSource` keeps.
struct Stream {
    status: u16,
    headers: HeaderMap,
    body: Incoming,
    text: String,
    last_id: Option<String>,
    connection: JoinHandle<hyper::Result<()>>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Stream {
    async fn open(to: SocketAddr, query: &str, more: &[(&str, &str)]) -> Self {
        let stream = TcpStream::connect(to).await.expect("it accepts");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("an HTTP connection");
        let connection = tokio::spawn(connection);
        let mut request = Request::get(format!("/api/v1/events{query}"))
            .header("host", to.to_string())
            .header("accept", "text/event-stream");
        for (name, value) in more {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::<Bytes>::new()).expect("a request");
        let answer = tokio::time::timeout(PATIENCE, sender.send_request(request)).await;
        let (parts, body) = answer.expect("an answer in time").expect("an answer").into_parts();
        let (status, headers) = (parts.status.as_u16(), parts.headers);
        Self { status, headers, body, text: String::new(), last_id: None, connection }
    }

    async fn of(to: SocketAddr, user: &str) -> Self {
        Self::open(to, &format!("?token={}", token(user)), &[]).await
    }

    /// Comes back as `EventSource` does.
    async fn back(self, to: SocketAddr, user: &str) -> Self {
        let last = self.last_id.clone().expect("an id came");
        Self::open(to, &format!("?token={}", token(user)), &[("last-event-id", &last)]).await
    }

    /// The next block; a comment is one without anything. `None` at the end.
    async fn next(&mut self) -> Option<Block> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (parse(block), rest.to_owned());
                self.text = rest;
                self.last_id = block.id.clone().or(self.last_id.take());
                return Some(block);
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("something in time")?;
            let Ok(frame) = frame else { return None };
            self.text.push_str(std::str::from_utf8(frame.data_ref().expect("data")).expect("UTF-8"));
        }
    }

    /// The next block with this event.
    async fn expect(&mut self, event: &str) -> Block {
        loop {
            let block = self.next().await.unwrap_or_else(|| panic!("the stream ended before {event}"));
            if block.event.as_deref() == Some(event) {
                return block;
            }
        }
    }

    /// All blocks up to the end.
    async fn rest(&mut self) -> Vec<Block> {
        let mut blocks = Vec::new();
        while let Some(block) = self.next().await {
            blocks.push(block);
        }
        blocks
    }
}

fn parse(text: &str) -> Block {
    let mut block = Block::default();
    for line in text.lines() {
        match line.split_once(": ") {
            Some(("event", value)) => block.event = Some(value.to_owned()),
            Some(("id", value)) => block.id = Some(value.to_owned()),
            Some(("retry", value)) => block.retry = Some(value.parse().expect("milliseconds")),
            Some(("data", value)) => block.data = serde_json::from_str(value).expect("JSON"),
            _ => assert!(line.starts_with(':'), "{line}"),
        }
    }
    block
}

/// A refusal that passes: a 200 with the time to come back, and the end.
async fn come_back_later(mut stream: Stream) {
    assert_eq!((stream.status, &stream.headers["content-type"]), (200, &"text/event-stream".parse().expect("a value")));
    let blocks = stream.rest().await;
    assert!(blocks.len() == 1 && blocks[0].retry.is_some_and(|ms| ms >= 500), "{blocks:?}");
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waited).await.unwrap_or_else(|_| panic!("{what}: not in time"));
}

async fn is_online(node: &Node, user: &str) -> bool {
    let path = format!("/api/v1/presence?users={user}");
    let (_, presence) = get(node.http, &path, &[("x-api-key", API_KEY)]).await;
    presence["users"][user]["online"] == true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_has_the_events_of_a_socket_and_counts_as_one() {
    let node = Node::embedded(&[("ALLOWED_ORIGINS", "https://app.example")]).await;
    let (name, value) = bearer(&token("b"));
    let headers = [(name, value.as_str()), ("origin", "https://app.example")];
    let mut stream = Stream::open(node.http, "", &headers).await;
    assert_eq!(stream.status, 200);
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-store"),
        ("x-accel-buffering", "no"),
        ("access-control-allow-origin", "https://app.example"),
    ] {
        assert_eq!(stream.headers[name], value, "{name}");
    }
    let first = stream.next().await.expect("the first event");
    let payload = &first.data["payload"];
    let epoch = payload["epoch"].as_str().expect("an epoch").to_owned();
    assert_eq!((first.event.as_deref(), payload["userId"].as_str()), (Some("auth_success"), Some("b")));
    assert_eq!(first.id, Some(format!("{epoch}:0")));
    until("b is online", async || is_online(&node, "b").await).await;
    assert_eq!(node.app.node().registry.socket_count(), 1);

    // A line break in a message doesn't end the event.
    say(node.http, "a", "b", "one\r\ntwo\n\nthree").await;
    let new = stream.expect("message.new").await;
    assert_eq!(new.data["payload"]["message"]["content"], "one\r\ntwo\n\nthree");
    assert_eq!(new.id, Some(format!("{epoch}:2")), "the conversation was 1");
    assert_eq!((&new.data["type"], &new.data["seq"]), (&json!("message.new"), &json!(2)));
    assert_eq!(stream.expect("notification.unread").await.id, None, "a companion has no position");

    drop(stream);
    until("b is offline", async || !is_online(&node, "b").await).await;
    assert_eq!(node.app.node().registry.socket_count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_goes_on_at_its_last_id_on_any_node() {
    let cluster = TwoNodes::start(&[("CONNECT_RATE_PER_USER", "0")]).await;
    let nodes = [cluster.one.http, cluster.two.http];
    let mut stream = Stream::of(nodes[0], "b").await;
    stream.expect("auth_success").await;
    let flooding = tokio::spawn(async move { flood(nodes[1], "a", "b", 200).await });
    let (mut contents, mut last_seq, mut turn) = (Vec::new(), 0, 0);
    while contents.len() < 200 {
        let block = stream.next().await.expect("it goes on");
        assert_ne!(block.event.as_deref(), Some("resync"), "{block:?}");
        if let Some(seq) = block.data["seq"].as_u64() {
            assert_eq!(seq, last_seq + 1, "no hole and no double: {block:?}");
            last_seq = seq;
            if block.event.as_deref() == Some("message.new") {
                contents.push(block.data["payload"]["message"]["content"].as_str().expect("text").to_owned());
            }
            if seq % 25 == 0 {
                turn += 1;
                stream = stream.back(nodes[turn % 2], "b").await;
                let success = stream.expect("auth_success").await;
                assert_eq!(success.data["payload"]["resumed"], true);
                assert_eq!(success.id, stream.last_id);
            }
        }
    }
    assert_eq!(contents, flooded(200));
    flooding.await.expect("the flood ends");

    // The header counts for more than the query, with which `EventSource` always comes.
    let last = stream.last_id.clone().expect("an id");
    let query = format!("?since=gone:1&token={}", token("b"));
    let mut again = Stream::open(nodes[1], &query, &[("last-event-id", &last)]).await;
    assert_eq!(again.expect("auth_success").await.data["payload"]["resumed"], true);
    // A position that can't be served is told, and the stream goes on behind it.
    let mut gone = Stream::open(nodes[0], &query, &[]).await;
    assert_eq!(gone.expect("auth_success").await.data["payload"]["resumed"], false);
    let resync = gone.expect("resync").await;
    assert_eq!((resync.id, &resync.data["payload"]["reason"]), (None, &json!("epoch")));
    say(nodes[0], "a", "b", "after").await;
    let new = gone.expect("message.new").await;
    let epoch = resync.data["payload"]["epoch"].as_str().expect("an epoch");
    assert_eq!(new.id, Some(format!("{epoch}:{}", last_seq + 1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_streams_and_they_come_back() {
    let node = Node::embedded(&[("DRAIN_SECONDS", "4")]).await;
    let mut stream = Stream::of(node.http, "b").await;
    stream.expect("auth_success").await;
    let http = node.http;
    let drain = tokio::spawn(node.app.drain());
    stream.expect("goaway").await;
    let rest = stream.rest().await;
    assert!(rest.last().is_some_and(|last| last.retry.is_some()), "{rest:?}");
    // While others are still open, a new one is sent elsewhere.
    if TcpStream::connect(http).await.is_ok() {
        come_back_later(Stream::of(http, "c").await).await;
    }
    drain.await.expect("the drain ends").expect("every part ends in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_with_its_token_and_is_refused_for_good() {
    let node = Node::embedded(&[]).await;
    let refused = async |query: &str| {
        let stream = Stream::open(node.http, query, &[]).await;
        assert_eq!((stream.status, &stream.headers["content-type"]), (401, &"application/json".parse().expect("one")));
    };
    refused("").await;
    refused("?token=nonsense").await;

    let mut stream = Stream::of(node.http, "b").await;
    stream.expect("auth_success").await;
    let (status, _) =
        post(node.http, "/api/v1/control/revoke", &[("x-api-key", API_KEY)], json!({ "userId": "b" })).await;
    assert!(status < 300, "{status}");
    assert!(stream.rest().await.iter().all(|block| block.retry.is_none()), "nothing to wait for");
    refused(&format!("?token={}", token("b"))).await;

    let short = token_with(json!({ "sub": "c", "iat": in_seconds(-5), "exp": in_seconds(3) }));
    let mut stream = Stream::open(node.http, &format!("?token={short}"), &[]).await;
    stream.expect("auth_success").await;
    stream.rest().await;
    until("it has expired", async || Stream::open(node.http, &format!("?token={short}"), &[]).await.status == 401)
        .await;

    // A ticket opens one stream, a cookie any number.
    let (name, value) = bearer(&token("d"));
    let (_, made) = post(node.http, "/api/v2/ws-token", &[(name, value.as_str())], json!({})).await;
    let ticket = format!("?token={}", made["token"].as_str().or(made["ticket"].as_str()).expect("a ticket"));
    assert_eq!(Stream::open(node.http, &ticket, &[]).await.expect("auth_success").await.data["payload"]["userId"], "d");
    refused(&ticket).await;
    let cookie = format!("token={}", token("e"));
    for _ in 0..2 {
        Stream::open(node.http, "", &[("cookie", &cookie)]).await.expect("auth_success").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_count_for_the_limits_of_sockets() {
    for (setting, value) in [
        ("MAX_CONNECTIONS_PER_USER", "1"),
        ("MAX_CONNECTIONS", "1"),
        ("MAX_CONNECTIONS_PER_IP", "1"),
        ("CONNECT_RATE_PER_IP", "1"),
    ] {
        let node = Node::embedded(&[(setting, value)]).await;
        let mut stream = Stream::of(node.http, "b").await;
        stream.expect("auth_success").await;
        if setting == "CONNECT_RATE_PER_IP" {
            let _second = Stream::of(node.http, "b").await;
            let third = Stream::of(node.http, "b").await;
            come_back_later(third).await;
            continue;
        }
        come_back_later(Stream::of(node.http, "b").await).await;
        if setting != "MAX_CONNECTIONS_PER_USER" {
            let socket = Client::open(node.http, &format!("/chat/ws?token={}", token("c")), &[]).await;
            assert!(socket.is_err(), "{setting}: a socket has no place beside a stream");
        }
        drop(stream);
        until("its place is free", async || {
            let mut stream = Stream::of(node.http, "b").await;
            stream.next().await.is_some_and(|block| block.event.as_deref() == Some("auth_success"))
        })
        .await;
    }
    let node = Node::embedded(&[("CONNECT_RATE_PER_USER", "1")]).await;
    let mut waits = VecDeque::new();
    for _ in 0..60 {
        let mut stream = Stream::of(node.http, "b").await;
        if let Some(Block { retry: Some(ms), .. }) = stream.next().await {
            waits.push_back(ms);
        }
    }
    assert!(waits.len() > 5 && waits.iter().any(|ms| Some(ms) != waits.front()), "refused, jittered: {waits:?}");
}

/// More streams than there are places for plain connections: those stay free, and each stream has the event.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_hold_no_place_of_a_plain_connection() {
    let node = Node::embedded(&[
        ("MAX_CONNECTIONS_PER_USER", "0"),
        ("CONNECT_RATE_PER_USER", "0"),
        ("MAX_CONNECTIONS", "3000"),
    ])
    .await;
    let mut streams = Vec::new();
    for _ in 0..2_100 {
        let mut stream = Stream::of(node.http, "b").await;
        stream.expect("auth_success").await;
        streams.push(stream);
    }
    say(node.http, "a", "b", "to all").await;
    for stream in &mut streams {
        stream.expect("message.new").await;
    }
    assert_eq!(get(node.http, "/api/v1/presence?users=b", &[("x-api-key", API_KEY)]).await.0, 200);
}

/// Comments keep a quiet stream alive; a client that reads nothing is cut off, and comes back by its last id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_stream_lives_and_one_that_reads_nothing_is_cut_off() {
    let node = Node::embedded(&[
        ("HEARTBEAT_SECONDS", "1"),
        ("HEARTBEAT_TIMEOUT_SECONDS", "2"),
        ("WRITE_TIMEOUT_SECONDS", "2"),
        ("SEND_QUEUE_BYTES", "65536"),
        ("COMMANDS_PER_SECOND", "0"),
        ("USER_COMMANDS_PER_SECOND", "0"),
    ])
    .await;
    let registry = std::sync::Arc::clone(&node.app.node().registry);
    let mut quiet = Stream::of(node.http, "q").await;
    quiet.expect("auth_success").await;
    let mut comments = 0;
    while comments < 5 {
        let block = quiet.next().await.expect("it lives");
        comments += u32::from(block == Block::default());
    }

    let deaf = TcpSocket::new_v4().expect("a socket");
    deaf.set_recv_buffer_size(2048).expect("a small buffer");
    let mut deaf = deaf.connect(node.http).await.expect("the node accepts");
    let head = format!(
        "GET /api/v1/events?token={} HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n",
        token("b")
    );
    deaf.write_all(head.as_bytes()).await.expect("the kernel takes it");
    until("b is here", async || registry.socket_count() == 2).await;
    let mut a = Client::join(node.http, "a").await;
    let content = "x".repeat(4000);
    for n in 0..300 {
        a.send("message.send", json!({ "to": "b", "content": content, "tempId": format!("t{n}") })).await;
        a.expect("message.sent").await;
    }
    until("b is cut off", async || registry.socket_count() == 2).await;
    let mut got = Vec::new();
    let read = tokio::time::timeout(PATIENCE, deaf.read_to_end(&mut got)).await.expect("it is closed");
    drop(read);
    let text = String::from_utf8_lossy(&got);
    assert!(text.starts_with("HTTP/1.1 200"), "{}", &text[..100.min(text.len())]);
    say(node.http, "a", "q", "still here").await;
    quiet.expect("message.new").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxies_pass_each_event_on_as_it_comes() {
    let cluster = TwoNodes::start(&[]).await;
    let nginx = Nginx::before(&cluster.one, &cluster.two).await;
    let haproxy = Haproxy::before(&cluster.one, &cluster.two).await;
    for proxy in [nginx.address, haproxy.address] {
        let mut stream = Stream::of(proxy, "b").await;
        stream.expect("auth_success").await;
        for n in 0..5 {
            let content = format!("m{n}");
            // Only when one has come the next is sent, so none can be pushed on by another.
            say(cluster.two.http, "a", "b", &content).await;
            assert_eq!(stream.expect("message.new").await.data["payload"]["message"]["content"], content.as_str());
        }
        let mut back = stream.back(proxy, "b").await;
        assert_eq!(back.expect("auth_success").await.data["payload"]["resumed"], true);
    }
}
