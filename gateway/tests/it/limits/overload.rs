//! What clients are told when too much waits: the same over sockets of every kind and over REST.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::client::Client;
use crate::support::flat::Flat;
use crate::support::http::{get, post};
use crate::support::node::API_KEY;
use crate::support::postgres::Postgres;
use crate::support::process::ServedNode;
use crate::support::redis::Redis;

fn is_told(error: &Value, text: &str) {
    assert_eq!((&error["code"], &error["retryable"]), (&json!("UNAVAILABLE"), &json!(true)), "{error}");
    let message = error["message"].as_str().expect("a text");
    assert!(message.contains(text) && message.contains("try again in"), "{error}");
    assert!(error["retryAfterMs"].as_u64().is_some_and(|wait| (500..10_000).contains(&wait)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_refused_is_told_what_waits_and_when_to_come_again() {
    let (redis, postgres) = (Redis::start(), Postgres::start_own());
    let database = postgres.new_database().await;
    let folder = tempfile::tempdir().expect("a folder");
    let node = ServedNode::start(&redis.url(), &database.url, &[("LOG_FORMAT", "json")], folder.path(), "node").await;
    let chat = json!({ "id": "3", "kind": "direct", "members": ["5", "6"] });
    assert_eq!(post(node.http, "/api/v1/conversations", &[("x-api-key", API_KEY)], chat).await.0, 201);
    let mut client = Client::join(node.http, "5").await;
    let mut other = Client::join(node.http, "6").await;
    let mut flat = Flat::join(node.http, "/ws/chat", "6").await;

    // The store stands still: what merely waits for a lock would be left out of the others' batches.
    postgres.freeze();
    let mut hanging = JoinSet::new();
    let http = node.http;
    let history = move || async move {
        get(http, "/api/v1/conversations/3/messages", &[("x-api-key", API_KEY), ("x-user-id", "5")]).await
    };
    (0..40).for_each(|_| drop(hanging.spawn(history())));
    // A message that hangs holds up the others.
    client.send("message.send", json!({ "conversationId": "3", "content": "x", "tempId": "t" })).await;
    tokio::time::sleep(Duration::from_millis(1_800)).await;

    let (status, answer) = history().await;
    assert_eq!(status, 503, "{answer}");
    is_told(&answer["error"], "look-ups wait");
    other.send("message.send", json!({ "conversationId": "3", "content": "x" })).await;
    is_told(&other.expect("error").await["payload"], "messages wait to be stored");
    flat.send(json!({ "type": "send_message", "chat_id": 3, "content": "x" })).await;
    let error = flat.expect("error").await;
    assert_eq!(error["code"], "UNAVAILABLE", "{error}");
    assert!(error["message"].as_str().is_some_and(|text| text.contains("messages wait to be stored")), "{error}");

    postgres.thaw();
    client.expect("message.sent").await;
    while hanging.join_next().await.is_some() {}
    assert_eq!(history().await.0, 200, "it goes on");

    drop((client, other, flat));
    let (_, log) = node.stop(Duration::from_secs(60)).await.expect("it ends");
    for reason in ["look-ups wait for the store", "messages wait to be stored"] {
        let told =
            log.lines().filter(|line| line.contains("clients are answered UNAVAILABLE") && line.contains(reason));
        assert!((1..=3).contains(&told.count()), "{reason}, once in some seconds: {log}");
    }
}
