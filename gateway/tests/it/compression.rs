//! permessage-deflate (RFC 7692) over real sockets: the negotiation, each dialect both ways, shared bytes, faults.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use gateway::delivery::registry::{LogEvent, Registry};
use gateway::delivery::send_queue::{Batch, SendQueue};
use serde_json::{Value, json};
use shared::{Dialect, Epoch, UserId, Wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::Client;
use crate::support::deflating::{Deflating, deflated};
use crate::support::http::{bearer, get, post};
use crate::support::node::{API_KEY, Node, token};
use crate::support::two_nodes::{TwoNodes, bounded};

const OFFER: &str = "permessage-deflate; client_max_window_bits";
const ACCEPTED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// Some sentences: more than `COMPRESS_MIN_BYTES`, and easily compressed.
fn long() -> String {
    "We meet at the usual place, at the usual time, and talk about the usual things. ".repeat(20).trim_end().to_owned()
}

fn path(dialect: Dialect, user: &str) -> String {
    format!("{}?token={}", dialect.path(), token(user))
}

/// A message to the group 456, as the dialect says it.
fn say(dialect: Dialect, content: &str) -> Value {
    match dialect {
        Dialect::Chat => json!({ "type": "message.send", "payload": { "conversationId": "456", "content": content } }),
        Dialect::Listings => json!({ "type": "send_message", "chat_id": 456, "content": content }),
        Dialect::Social => json!({ "type": "group", "group_id": 456, "content": content }),
        Dialect::Channels => json!({ "type": "chat_message", "channel_id": 456, "content": content }),
    }
}

/// The type of the frame that brings another's message, and where its content stands.
fn heard(dialect: Dialect) -> (&'static str, &'static str) {
    match dialect {
        Dialect::Chat => ("message.new", "/payload/message/content"),
        Dialect::Listings => ("new_message", "/message/content"),
        Dialect::Social => ("group", "/content"),
        Dialect::Channels => ("chat_message", "/content"),
    }
}

/// Opens a socket that may compress, and waits until it has joined.
async fn join(node: &Node, dialect: Dialect, user: &str) -> Deflating {
    let mut socket = Deflating::open(node.http, &path(dialect, user), OFFER).await;
    assert_eq!(socket.extension.as_deref(), Some(ACCEPTED), "{dialect:?}");
    socket.expect(if dialect == Dialect::Chat { "auth_success" } else { "connected" }).await;
    socket
}

async fn group(node: &Node) {
    let group = json!({ "id": "456", "kind": "group", "members": ["10", "11"] });
    let (status, made) = post(node.http, "/api/v1/conversations", &[("x-api-key", API_KEY)], group).await;
    assert_eq!(status, 201, "{made}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_dialect_compresses_both_ways_across_nodes() {
    bounded(async {
        let cluster = TwoNodes::start(&[]).await;
        group(&cluster.one).await;
        for dialect in Dialect::ALL {
            let mut sender = join(&cluster.one, dialect, "10").await;
            let mut reader = join(&cluster.two, dialect, "11").await;
            let mut plain = Client::open(cluster.two.http, &path(dialect, "11"), &[]).await.expect("an upgrade");
            plain.expect(if dialect == Dialect::Chat { "auth_success" } else { "connected" }).await;
            let (kind, place) = heard(dialect);
            for (content, is_long) in [(long(), true), ("short".to_owned(), false)] {
                // Nobody has to compress: a short message comes as it is.
                match is_long {
                    true => sender.send_compressed(&say(dialect, &content)).await,
                    false => sender.send(&say(dialect, &content)).await,
                }
                let text = reader.expect(kind).await;
                assert_eq!(text.json.pointer(place), Some(&json!(content)), "{dialect:?}");
                assert_eq!(text.compressed, is_long, "{dialect:?}: {}", text.json);
                assert!(!is_long || text.payload.len() < 600, "{dialect:?}: {} bytes", text.payload.len());
                let beside = plain.expect(kind).await;
                assert_eq!(beside.pointer(place), text.json.pointer(place), "{dialect:?}");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_negotiated_depends_on_the_offer_and_the_setting() {
    let node = Node::embedded(&[]).await;
    let to = path(Dialect::Chat, "10");
    for (offer, expected) in [
        ("permessage-deflate", Some(ACCEPTED.to_owned())),
        ("permessage-deflate; server_max_window_bits=15", Some(format!("{ACCEPTED}; server_max_window_bits=15"))),
        ("permessage-deflate; server_max_window_bits=10, permessage-deflate", Some(ACCEPTED.to_owned())),
        ("permessage-deflate; server_max_window_bits=10", None),
        ("permessage-deflate; unheard_of", None),
        ("x-webkit-deflate-frame", None),
    ] {
        let mut socket = Deflating::open(node.http, &to, offer).await;
        assert_eq!(socket.extension, expected, "{offer}");
        socket.expect("auth_success").await;
        let command = say(Dialect::Chat, "x").to_string();
        socket.send_frame(0xC1, &deflated(command.as_bytes())).await;
        match expected {
            Some(_) => assert_eq!(socket.expect("error").await.json["payload"]["code"], "NOT_FOUND"),
            None => assert_eq!(socket.expect_close().await, 1002, "{offer}"),
        }
    }
    // A client without a known subprotocol is sent away, and nothing else is agreed on.
    let unknown = format!("{OFFER}\r\nSec-WebSocket-Protocol: chat.v9");
    let mut socket = Deflating::open(node.http, &to, &unknown).await;
    assert_eq!((socket.extension.clone(), socket.expect_close().await), (None, 4004));

    let node = Node::embedded(&[("COMPRESS_MIN_BYTES", "0")]).await;
    let socket = Deflating::open(node.http, &to, OFFER).await;
    assert_eq!(socket.extension, None);
    let node = Node::embedded(&[("COMPRESS_MIN_BYTES", "60")]).await;
    let mut socket = join(&node, Dialect::Chat, "10").await;
    socket.send(&json!({ "type": "ping", "payload": {}, "ref": "x".repeat(100) })).await;
    assert!(socket.expect("pong").await.compressed, "an answer to one connection, too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_messages_come_in_fragments_and_have_their_faults() {
    let node = Node::embedded(&[("MAX_FRAME_BYTES", "4096")]).await;
    let ping = json!({ "type": "ping", "payload": { "timestamp": "1" }, "ref": "in pieces" }).to_string();
    let payload = deflated(ping.as_bytes());
    let mut socket = join(&node, Dialect::Chat, "10").await;
    let (first, rest) = payload.split_at(7);
    socket.send_frame(0x41, first).await;
    socket.send_frame(0x89, b"between").await;
    socket.send_frame(0x00, &[]).await;
    socket.send_frame(0x80, rest).await;
    assert_eq!(socket.expect("pong").await.json["ref"], "in pieces");
    // As large as it may be, far smaller on the wire, and no command.
    socket.send_frame(0xC1, &deflated(&[b' '; 4096])).await;
    assert_eq!(socket.expect("error").await.json["payload"]["code"], "INVALID_MESSAGE");

    for (head, payload, code) in [
        (0xC1, deflated(&[b' '; 4097]), 1009),
        (0xC1, deflated(&vec![0; 1 << 20]), 1009),
        (0xC1, b"no deflate stream".to_vec(), 1002),
        (0xC1, payload[..payload.len() - 4].to_vec(), 1002),
        (0xC1, deflated(b"\xFF\xFE"), 1007),
        (0xC9, Vec::new(), 1002),
        (0xC0, payload.clone(), 1002),
        (0xE1, payload.clone(), 1002),
    ] {
        let mut socket = join(&node, Dialect::Chat, "10").await;
        socket.send_frame(head, &payload).await;
        assert_eq!(socket.expect_close().await, code, "{head:#x} with {} bytes", payload.len());
    }
    let mut socket = join(&node, Dialect::Chat, "10").await;
    socket.send_frame(0x41, &deflated(&vec![0; 60_000])).await;
    socket.send_frame(0x80, &[]).await;
    assert_eq!(socket.expect_close().await, 1009, "a bomb in fragments");
}

/// One compressed form, whoever gets it: the bytes in the queues are the same ones, not equal ones.
#[test]
fn an_event_is_compressed_once_for_all_sockets_that_negotiated_it() {
    let registry = Registry::new(0);
    let user = UserId::parse("10").expect("an id");
    let epoch = Epoch::parse("redis.1").expect("an epoch");
    let event = json!({ "seq": 1, "type": "message.new", "payload": { "message": {
        "id": "7", "conversationId": "456", "seq": 1, "rev": 1, "senderId": "11", "kind": "text", "content": long(),
        "createdAt": "2025-11-21T13:00:00.000Z" } } })
    .to_string();
    for dialect in Dialect::ALL {
        let deflating = Wire { deflate_from: std::num::NonZeroU16::new(512), ..Wire::plain(dialect, true) };
        let wires = [[deflating; 5], [Wire::plain(dialect, true); 5]].concat();
        let queues: Vec<Arc<SendQueue>> = wires
            .into_iter()
            .zip(1..)
            .map(|(wire, connection)| {
                let queue = Arc::new(SendQueue::new(1 << 20, wire));
                registry.add(&user, connection, Arc::clone(&queue), u32::MAX).expect("room");
                registry.join(&user, connection, &epoch, 0, Bytes::new());
                queue
            })
            .collect();
        registry.push_durable("10", &LogEvent::live(1, event.as_bytes(), None));
        let frames: Vec<Bytes> = queues
            .iter()
            .map(|queue| {
                let mut batch = Batch::default();
                queue.take(&mut batch, Waker::noop());
                batch.frames.pop_front().expect("the event")
            })
            .collect();
        let (compressed, plain) = frames.split_at(5);
        assert!(compressed[0].len() * 3 < plain[0].len(), "{dialect:?}: {} of {}", compressed[0].len(), plain[0].len());
        for forms in [compressed, plain] {
            assert!(forms.iter().all(|form| form.as_ptr() == forms[0].as_ptr()), "{dialect:?}");
        }
        for connection in 1..=10 {
            registry.remove(&user, connection);
        }
    }
}

/// Streams of events and long polls read the same log; nothing of theirs is compressed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_and_polls_are_as_before() {
    let node = Node::embedded(&[("COMPRESS_MIN_BYTES", "1")]).await;
    group(&node).await;
    let token = token("11");
    let (name, value) = bearer(&token);
    let (status, now) = get(node.http, "/api/v1/events", &[(name, &value)]).await;
    assert_eq!(status, 200, "{now}");
    let since = format!("{}:{}", now["epoch"].as_str().expect("an epoch"), now["seq"]);
    let mut stream = TcpStream::connect(node.http).await.expect("it accepts");
    let request = format!(
        "GET /api/v1/events?token={token} HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\nAccept-Encoding: deflate\r\n\
         Sec-WebSocket-Extensions: {OFFER}\r\n\r\n",
        node.http
    );
    stream.write_all(request.as_bytes()).await.expect("a live connection");
    let mut text = Vec::new();
    read_until(&mut stream, &mut text, "auth_success").await;

    let mut sender = join(&node, Dialect::Chat, "10").await;
    let mut reader = join(&node, Dialect::Chat, "11").await;
    sender.send_compressed(&say(Dialect::Chat, &long())).await;
    assert!(reader.expect("message.new").await.compressed);
    read_until(&mut stream, &mut text, &long()).await;
    let poll = format!("/api/v1/events?wait=5&since={since}");
    let (status, page) = get(node.http, &poll, &[(name, &value)]).await;
    assert_eq!(status, 200, "{page}");
    assert!(page.to_string().contains(&long()), "{page}");
}

async fn read_until(stream: &mut TcpStream, bytes: &mut Vec<u8>, wanted: &str) {
    let reading = async {
        while !String::from_utf8_lossy(bytes).contains(wanted) {
            assert!(stream.read_buf(bytes).await.expect("a live connection") > 0, "the stream ended");
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reading).await.expect("in time");
}
