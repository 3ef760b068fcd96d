//! Seed 000 over real sockets: the frames that the document shows, in both directions, with its ids.

use std::time::Duration;

use serde_json::{Value, json};
use shared::Dialect;

use crate::support::flat::{Flat, assert_shows, open_chat};
use crate::support::http::{get, post};
use crate::support::node::{API_KEY, Node, in_seconds, token, token_with};
use crate::support::two_nodes::acting;

const PATH: &str = "/ws/chat";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_from_its_upgrade_to_its_pong() {
    let node = Node::embedded(&[]).await;
    // The user id is the claim of a token in the query; the document's users are integers.
    let claims = json!({ "user_id": 6, "exp": in_seconds(60) });
    let (mut six, connected) = Flat::join_with(node.http, PATH, &token_with(claims), "").await;
    let document = r#"{
      "type": "connected",
      "user_id": 6,
      "timestamp": "2025-11-21T13:00:00Z"
    }"#;
    assert_shows(document, &connected, &[]);
    assert_eq!((connected.get("seq"), connected.get("epoch")), (None, None), "a flat socket has no position");

    six.0.send_text(r#"{"type": "ping"}"#).await;
    let pong = six.expect("pong").await;
    assert_shows(r#"{ "type": "pong", "timestamp": "2025-11-21T13:00:00Z" }"#, &pong, &[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_reaches_every_device_of_both() {
    let node = Node::embedded(&[]).await;
    open_chat(&node).await;
    let mut devices = [
        Flat::join(node.http, PATH, "5").await,
        Flat::join(node.http, PATH, "5").await,
        Flat::join(node.http, PATH, "6").await,
        Flat::join(node.http, PATH, "6").await,
    ];
    devices[0].send(json!({ "type": "send_message", "chat_id": 3, "content": "Hello!", "temp_id": "t1" })).await;
    let document = r#"{
      "type": "new_message",
      "chat_id": 3,
      "message": {
        "id": 789,
        "chat_id": 3,
        "sender_id": 5,
        "receiver_id": 6,
        "content": "Hello!",
        "created_at": "2025-11-21T13:00:00Z"
      },
      "timestamp": "2025-11-21T13:00:00Z"
    }"#;
    let mut frames = Vec::new();
    for device in &mut devices {
        let frame = device.expect("new_message").await;
        assert_shows(document, &frame, &["id"]);
        frames.push(frame);
        assert_eq!(device.settle().await, Vec::<Value>::new(), "one message is one frame");
    }
    assert!(frames.iter().all(|frame| *frame == frames[0]), "all see the same: {frames:?}");
    assert_eq!(frames[0]["message"]["temp_id"], "t1");

    // The service layer's SendMessage, as a backend calls it.
    let body = json!({ "conversationId": "3", "content": "From the service", "tempId": "s1" });
    let (status, _) = acting(node.http, "POST", "/api/v1/messages", "6", body).await;
    assert_eq!(status, 201);
    for device in &mut devices {
        let message = device.expect("new_message").await["message"].clone();
        assert_eq!((&message["sender_id"], &message["receiver_id"]), (&json!(6), &json!(5)));
        assert_eq!(message["content"], "From the service");
    }

    // By user instead of chat, ids as strings; a repeated send is one message, told to who repeats it alone.
    let send = json!({ "type": "send_message", "receiver_id": "6", "content": "again", "temp_id": "t2" });
    devices[0].send(send.clone()).await;
    let mut first = Value::Null;
    for device in &mut devices {
        first = device.expect("new_message").await;
    }
    assert_eq!(first["chat_id"], 3);
    devices[0].send(send).await;
    assert_eq!(devices[0].expect("new_message").await, first);
    let other = json!({ "type": "send_message", "receiver_id": "6", "content": "another", "temp_id": "t2" });
    devices[0].send(other).await;
    assert_eq!(devices[0].expect("error").await["code"], "CONFLICT");
    for device in &mut devices {
        assert_eq!(device.settle().await, Vec::<Value>::new());
    }
}

/// JavaScript would round such an id to a stranger's: it is a string, and an integer is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_javascript_does_not_hold_is_a_string() {
    const LARGE: &str = "1161888007138312193";
    let node = Node::embedded(&[]).await;
    let claims = json!({ "sub": 1_161_888_007_138_312_193u64, "exp": in_seconds(60) });
    let (mut large, connected) = Flat::join_with(node.http, PATH, &token_with(claims.clone()), "").await;
    let (mut social, in_social) = Flat::join_with(node.http, "/ws", &token_with(claims), "").await;
    assert_eq!((&connected["user_id"], &in_social["user_id"]), (&json!(LARGE), &json!(LARGE)));
    let mut small = Flat::join(node.http, PATH, "9007199254740991").await;
    large.send(json!({ "type": "send_message", "receiver_id": 9_007_199_254_740_991u64, "content": "hi" })).await;
    let message = small.expect("new_message").await["message"].clone();
    assert_eq!((&message["sender_id"], &message["receiver_id"]), (&json!(LARGE), &json!(9_007_199_254_740_991u64)));
    assert_eq!(social.expect("private").await["from"], LARGE);
    for id in [json!(1_161_888_007_138_312_193u64), json!(9_007_199_254_740_992u64)] {
        let answer = json!({ "type": "send_message", "receiver_id": id, "content": "x" });
        assert_eq!(small.refused(answer).await, "VALIDATION_ERROR");
        assert_eq!(social.refused(json!({ "type": "private", "to": id, "content": "x" })).await, "VALIDATION_ERROR");
    }
    small.send(json!({ "type": "send_message", "receiver_id": LARGE, "content": "back" })).await;
    assert_eq!(social.expect("private").await["to"], LARGE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn typing_is_told_to_the_other_participant() {
    let node = Node::embedded(&[]).await;
    open_chat(&node).await;
    let mut five = Flat::join(node.http, PATH, "5").await;
    let mut devices = [Flat::join(node.http, PATH, "6").await, Flat::join(node.http, PATH, "6").await];
    // The document's client frame, with the chat of its server frames.
    five.0.send_text(&r#"{"type": "typing", "chat_id": 123, "is_typing": true}"#.replace("123", "3")).await;
    let document = r#"{
      "type": "typing",
      "chat_id": 3,
      "user_id": 5,
      "is_typing": true,
      "timestamp": "2025-11-21T13:00:00Z"
    }"#;
    for six in &mut devices {
        assert_shows(document, &six.expect("typing").await, &[]);
    }
    five.send(json!({ "type": "typing", "chat_id": 3, "is_typing": false })).await;
    for six in &mut devices {
        assert_eq!(six.expect("typing").await["is_typing"], false);
    }
    assert_eq!(five.settle().await, Vec::<Value>::new(), "who types is not told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marking_as_read_is_carried_out_and_told() {
    let node = Node::embedded(&[]).await;
    open_chat(&node).await;
    let mut five = [Flat::join(node.http, PATH, "5").await, Flat::join(node.http, PATH, "5").await];
    let mut six = Flat::join(node.http, PATH, "6").await;
    let mut ids = Vec::new();
    for content in ["one", "two", "three"] {
        five[0].send(json!({ "type": "send_message", "chat_id": 3, "content": content })).await;
        ids.push(six.expect("new_message").await["message"]["id"].clone());
        five[1].expect("new_message").await;
        five[0].expect("new_message").await;
    }
    let unread =
        async || acting(node.http, "GET", "/api/v1/conversations/3", "6", Value::Null).await.1["unread"].clone();
    assert_eq!(unread().await, 3);

    // One message by its id, as the document's frame does it.
    let frame = r#"{"type": "mark_read", "message_id": 456}"#.replace("456", &ids[0].to_string());
    six.0.send_text(&frame).await;
    let document = r#"{
      "type": "message_read",
      "chat_id": 3,
      "message_id": 456,
      "read_by": 6,
      "timestamp": "2025-11-21T13:00:00Z"
    }"#;
    for device in &mut five {
        let frame = device.expect("message_read").await;
        assert_shows(document, &frame, &["message_id"]);
        assert_eq!(frame["message_id"], ids[0]);
    }
    assert_eq!(unread().await, 2);

    // All of them ("supports both specific messages and mark all").
    six.send(json!({ "type": "mark_read", "chat_id": 3 })).await;
    for device in &mut five {
        for id in &ids[1..] {
            assert_eq!(device.expect("message_read").await["message_id"], *id);
        }
        assert_eq!(device.settle().await, Vec::<Value>::new(), "each message is told once");
    }
    assert_eq!(unread().await, 0);
    assert_eq!(six.settle().await, Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_message_gets_an_error_and_the_connection_stays() {
    let node = Node::embedded(&[]).await;
    open_chat(&node).await;
    let mut six = Flat::join(node.http, PATH, "6").await;
    six.0.send_text("nonsense").await;
    assert_eq!(six.expect("error").await["code"], "INVALID_MESSAGE");
    for (frame, code, field) in [
        (json!({ "chat_id": 3 }), "INVALID_MESSAGE", "type"),
        (json!({ "type": "subscribe" }), "UNKNOWN_EVENT", "type"),
        (json!({ "type": "typing", "is_typing": true }), "VALIDATION_ERROR", "chat_id"),
        (json!({ "type": "typing", "chat_id": 3 }), "VALIDATION_ERROR", "is_typing"),
        (json!({ "type": "typing", "chat_id": 3.5, "is_typing": true }), "VALIDATION_ERROR", "chat_id"),
        (json!({ "type": "typing", "chat_id": "a b", "is_typing": true }), "VALIDATION_ERROR", "chat_id"),
        (json!({ "type": "mark_read" }), "VALIDATION_ERROR", "message_id"),
        (json!({ "type": "mark_read", "message_id": "x" }), "VALIDATION_ERROR", "message_id"),
        (json!({ "type": "send_message", "content": "x" }), "VALIDATION_ERROR", "chat_id"),
        (json!({ "type": "send_message", "chat_id": 3 }), "VALIDATION_ERROR", "content"),
        (
            json!({ "type": "send_message", "chat_id": 3, "receiver_id": 5, "content": "x" }),
            "VALIDATION_ERROR",
            "receiver_id",
        ),
    ] {
        six.send(frame.clone()).await;
        let error = six.expect("error").await;
        assert_eq!((&error["code"], &error["field"]), (&json!(code), &json!(field)), "{frame}");
        assert!(error["message"].is_string());
    }
    assert_eq!(six.settle().await, Vec::<Value>::new());
}

/// Who takes no part in a chat neither writes, types nor reads there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_is_closed_to_others() {
    let node = Node::embedded(&[]).await;
    open_chat(&node).await;
    let mut five = Flat::join(node.http, PATH, "5").await;
    five.send(json!({ "type": "send_message", "chat_id": 3, "content": "private" })).await;
    let id = five.expect("new_message").await["message"]["id"].clone();
    let mut seven = Flat::join(node.http, PATH, "7").await;
    for frame in [
        json!({ "type": "send_message", "chat_id": 3, "content": "x" }),
        json!({ "type": "typing", "chat_id": 3, "is_typing": true }),
        json!({ "type": "mark_read", "chat_id": 3 }),
        json!({ "type": "mark_read", "message_id": id }),
    ] {
        assert_eq!(seven.refused(frame).await, "NOT_MEMBER");
    }
    assert_eq!(seven.refused(json!({ "type": "mark_read", "message_id": 999_999_999 })).await, "NOT_FOUND");
    assert_eq!(five.settle().await, Vec::<Value>::new());
}

/// Only a WebSocket upgrade is served at the path, and what connects is counted and let go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_counted_until_they_are_gone() {
    let node = Node::embedded(&[]).await;
    assert_eq!(get(node.http, &format!("{PATH}?token={}", token("6")), &[]).await.0, 400);
    let devices = [Flat::join(node.http, PATH, "6").await, Flat::join(node.http, PATH, "6").await];
    let other = crate::support::client::Client::join(node.http, "6").await;
    let stats = async || {
        let (status, stats) = get(node.http, "/api/v1/internal/chat/ws/stats", &[("x-api-key", API_KEY)]).await;
        assert_eq!(status, 200);
        stats
    };
    let there = stats().await;
    assert_eq!((&there["connections"], &there["users"]), (&json!(3), &json!(1)));
    assert_eq!(there["dialects"][Dialect::Listings.subprotocol()], 2);
    assert_eq!(there["dialects"][Dialect::Chat.subprotocol()], 1);
    drop((devices, other));
    let gone = async {
        while stats().await["connections"] != 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("closed connections are let go");
}

/// The document's clocks (1 s for a write, 30 s between pings, 60 s without an answer) are settings.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documents_clocks_can_be_set() {
    let seconds = Duration::from_secs;
    let settings = [("WRITE_TIMEOUT_SECONDS", "1"), ("HEARTBEAT_SECONDS", "30"), ("HEARTBEAT_TIMEOUT_SECONDS", "30")];
    let node = Node::embedded(&settings).await;
    let clocks = &node.app.node().clocks;
    assert_eq!(clocks.write_timeout, seconds(1));
    assert_eq!((clocks.heartbeat, clocks.heartbeat + clocks.heartbeat_timeout), (seconds(30), seconds(60)));
}

/// A peer that answers no ping is closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_ends_a_connection() {
    let node = Node::embedded(&[("HEARTBEAT_SECONDS", "1"), ("HEARTBEAT_TIMEOUT_SECONDS", "1")]).await;
    // Who doesn't read answers no ping.
    let _silent = Flat::join(node.http, PATH, "6").await;
    let mut talking = Flat::join(node.http, PATH, "6").await;
    let closed = async {
        while node.app.node().registry.socket_count() > 1 {
            talking.settle().await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(15), closed).await.expect("the silent one is closed");
    talking.settle().await;
}

/// A peer that reads nothing loses its connection when a write has made no progress for the time that is set.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_is_stuck_ends_a_connection() {
    // The queue is so large that the clock is what ends it.
    let node = Node::embedded(&[("WRITE_TIMEOUT_SECONDS", "1"), ("SEND_QUEUE_BYTES", "67108864")]).await;
    let _stuck = crate::support::client::Client::join(node.http, "6").await;
    let event = json!({ "type": "notification", "payload": { "text": "x".repeat(60_000) } });
    let publish = json!({ "users": ["6"], "event": event, "durable": false });
    let gone = async {
        while node.app.node().registry.socket_count() > 0 {
            let (status, _) = post(node.http, "/api/v1/publish", &[("x-api-key", API_KEY)], publish.clone()).await;
            assert_eq!(status, 202);
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("the stuck connection is ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_closes_its_connections_in_order() {
    let node = Node::embedded(&[("DRAIN_SECONDS", "1")]).await;
    let mut six = Flat::join(node.http, PATH, "6").await;
    let drained = tokio::spawn(node.app.drain());
    let crate::support::client::Incoming::Closed(code, reason) = six.0.next().await else {
        panic!("a close, and no frame")
    };
    assert_eq!((code, reason.as_str()), (4200, "draining"));
    drained.await.expect("the node stops").expect("and every part of it");
}
