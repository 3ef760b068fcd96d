//! A drain without a loss: `goaway`, answers to commands under way, 4200, and no new command.

use std::sync::atomic::Ordering;
use std::time::Duration;

use gateway::node::drain::STOP_MARGIN;
use serde_json::json;
use shared::ConversationId;

use crate::support::client::{Client, Incoming};
use crate::support::http::get;
use crate::support::node::{Node, token};
use crate::support::postgres::Postgres;
use crate::support::process::ServedNode;
use crate::support::redis::Redis;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_says_goodbye_answers_and_closes_with_4200() {
    let node =
        Node::embedded(&[("DRAIN_DELAY_SECONDS", "1"), ("DRAIN_SECONDS", "5"), ("COMMANDS_PER_SECOND", "0")]).await;
    let (http, ops) = (node.http, node.ops);
    let store = std::sync::Arc::clone(&node.app.node().store);
    let mut clients = Vec::new();
    for n in 0..20 {
        clients.push(Client::join(http, &format!("u{n}")).await);
    }
    let drain = tokio::spawn(node.app.drain());
    tokio::time::sleep(Duration::from_millis(300)).await;
    // Unready, but serving on.
    assert_eq!(get(ops, "/readyz", &[]).await.0, 503);
    assert_eq!(get(ops, "/healthz", &[]).await.0, 200);
    let late = Client::join(http, "late").await;
    clients.push(late);

    // Every client sends until its socket closes; every send that was read is acknowledged before that.
    let mut ended = Vec::new();
    for (n, mut client) in clients.into_iter().enumerate() {
        ended.push(tokio::spawn(async move {
            let (mut sent, mut acked, mut goodbye, mut conversation) = (0_u32, 0_u64, false, None);
            loop {
                client
                    .send("message.send", json!({ "to": "x", "content": "y", "tempId": format!("{n}-{sent}") }))
                    .await;
                sent += 1;
                // At most one send is outstanding.
                loop {
                    match client.next().await {
                        Incoming::Frame(frame) if frame["type"] == "message.sent" => {
                            acked += 1;
                            conversation = ConversationId::parse(
                                frame["payload"]["message"]["conversationId"].as_str().expect("an id"),
                            )
                            .ok();
                            break;
                        }
                        Incoming::Frame(frame) => goodbye |= frame["type"] == "goaway",
                        Incoming::Closed(code, reason) => return (code, reason, conversation, acked, goodbye),
                        Incoming::Vanished => panic!("no close frame"),
                    }
                }
            }
        }));
    }
    for client in ended {
        let (code, reason, conversation, acked, goodbye) = client.await.expect("a client ends");
        assert_eq!((code, reason.as_str(), goodbye), (4200, "draining", true));
        let conversation = store.conversation(&conversation.expect("an ack"), None).await.expect("it is stored");
        assert_eq!(conversation.last_seq, acked, "what was stored was acknowledged before the close");
    }
    tokio::time::timeout(Duration::from_secs(10), drain)
        .await
        .expect("drained in time")
        .expect("and without a fault")
        .expect("and every part of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_in_the_window_is_told_4200() {
    let node = Node::embedded(&[("DRAIN_DELAY_SECONDS", "0"), ("DRAIN_SECONDS", "6")]).await;
    let http = node.http;
    let _stays = Client::join(http, "a").await;
    let drain = tokio::spawn(node.app.drain());
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut late = Client::open(http, &format!("/chat/ws?token={}", token("b")), &[]).await.expect("served, not reset");
    assert_eq!(late.expect_close().await, 4200);
    drain.await.expect("drained").expect("and every part of it");
}

/// Who doesn't leave after `goaway`, and has taken its last command just before the end, is closed all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_left_at_the_end_of_a_drain_is_closed_then() {
    let node = Node::embedded(&[("DRAIN_DELAY_SECONDS", "0"), ("DRAIN_SECONDS", "1")]).await;
    let mut clients = Vec::new();
    for n in 0..20 {
        clients.push(Client::join(node.http, &format!("u{n}")).await);
    }
    let drain = tokio::spawn(node.app.drain());
    for client in &mut clients {
        assert_eq!(client.expect_close().await, 4200);
    }
    drain.await.expect("drained").expect("and every part of it");
}

/// The drain may have looked for the last time when a token has been checked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_proves_who_they_are_during_a_drain_is_told_4200() {
    let node = Node::embedded(&[]).await;
    let mut late = Client::open(node.http, "/chat/ws", &[]).await.expect("an upgrade");
    node.app.node().draining.store(true, Ordering::Relaxed);
    late.send("auth", json!({ "token": token("late") })).await;
    assert_eq!(late.expect_close().await, 4200);
    assert_eq!(node.app.node().registry.socket_count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_in_order_exits_with_0() {
    let (redis, database) = (Redis::start(), Postgres::database().await);
    let folder = tempfile::tempdir().expect("a folder");
    let settings = [("DRAIN_DELAY_SECONDS", "0"), ("DRAIN_SECONDS", "1")];
    let node = ServedNode::start(&redis.url(), &database.url, &settings, folder.path(), "node").await;
    let (status, log) = node.stop(Duration::from_secs(10)).await.expect("it ends");
    assert!(status.success(), "{status}: {log}");
    assert!(log.lines().next().is_some_and(|first| first.contains("version=") && first.contains("commit=")), "{log}");
}

/// The store answers nothing any more, and a commit waits for it: the process ends all the same. What had not ended by then
/// is named, and only then is it a fault: the calls to the store may just have given up before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_hangs_does_not_keep_the_process() {
    let (redis, postgres) = (Redis::start(), Postgres::start_own());
    let database = postgres.new_database().await;
    let folder = tempfile::tempdir().expect("a folder");
    let settings = [("DRAIN_DELAY_SECONDS", "0"), ("DRAIN_SECONDS", "1")];
    let node = ServedNode::start(&redis.url(), &database.url, &settings, folder.path(), "node").await;
    let mut client = Client::join(node.http, "a").await;
    postgres.freeze();
    client.send("message.send", json!({ "to": "b", "content": "x", "tempId": "1" })).await;
    tokio::time::sleep(Duration::from_millis(300)).await;

    let deadline = Duration::from_secs(1) + STOP_MARGIN;
    let (status, log) = node.stop(deadline + Duration::from_secs(5)).await.expect("it ends");
    postgres.thaw();
    let named = log.lines().any(|line| line.contains("did not end in time") && line.contains("part=\""));
    assert_eq!(log.contains("the node stopped before"), named, "{log}");
    assert_eq!(status.code(), Some(i32::from(named)), "{log}");
}
